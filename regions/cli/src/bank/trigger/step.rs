//! Steps of a scenario: what is sent, what comes back, and whether that was promised.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use standin_core::signature::basic;
use standin_edge::iso8583::Message;

use super::super::format::Heard;
use super::super::format::iso8583::{self, Shown};
use crate::client::{Call, Reply};
use crate::out::say;

/// What was sent, and what came of it.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) what: &'static str,
    pub(super) sent: Sent,
    /// `None`: the bank did not wait for it, or none came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) got: Option<Got>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) no_reply: Option<String>,
    pub(super) promised: &'static str,
    pub(super) kept: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Sent {
    Request(SentRequest),
    Message { message: Shown },
}

#[derive(Debug, Serialize)]
pub(super) struct SentRequest {
    path: String,
    headers: Vec<String>,
    /// As it is.
    body: Box<RawValue>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Got {
    Reply(GotReply),
    Message(GotMessage),
    /// The connection was closed, and why, without an answer.
    Closed {
        closed: String,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct GotReply {
    status: u16,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    #[serde(flatten)]
    heard: Heard,
    body: Box<RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct GotMessage {
    #[serde(flatten)]
    heard: Heard,
    message: Shown,
}

// === impl Step ===

impl Step {
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.no_reply.is_some()
    }

    pub(super) fn show(&self) {
        say(format_args!("{}", self.what));
        self.sent.show();
        match (&self.got, &self.no_reply) {
            (Some(got), _) => got.show(),
            (None, Some(why)) => say(format_args!("  got       no reply: {why}")),
            (None, None) => say("  got       not waited for"),
        }
        let kept = if self.kept {
            "so it is"
        } else {
            "it is NOT so"
        };
        say(format_args!("  promised  {}: {kept}", self.promised));
    }
}

// === impl Sent ===

impl Sent {
    pub(super) fn request(call: &Call) -> Self {
        let headers = call.headers.iter().map(|(name, value)| {
            // User and password: they are the secret.
            let value = if *name == basic::HEADER {
                "Basic …"
            } else {
                value
            };
            format!("{name}: {value}")
        });
        Self::Request(SentRequest {
            path: call.path.clone(),
            headers: headers.collect(),
            body: raw(&call.body),
        })
    }

    pub(super) fn message(message: &Message) -> Self {
        Self::Message {
            message: Shown::of(message),
        }
    }

    fn show(&self) {
        match self {
            Self::Request(SentRequest {
                path,
                headers,
                body,
            }) => {
                say(format_args!("  sent      POST {path}"));
                for header in headers {
                    say(format_args!("            {header}"));
                }
                say(format_args!("            {}", body.get()));
            }
            Self::Message { message } => say(format_args!("  sent      {message}")),
        }
    }
}

// === impl Got ===

impl Got {
    pub(super) fn reply(reply: &Reply, heard: Heard) -> Self {
        Self::Reply(GotReply {
            status: reply.status,
            replayed: reply.replayed.as_deref() == Some("true"),
            retry_after: reply.retry_after.clone(),
            heard,
            body: raw(&reply.body),
        })
    }

    pub(super) fn message(reply: &Message) -> Self {
        Self::Message(GotMessage {
            heard: iso8583::heard(reply),
            message: Shown::of(reply),
        })
    }

    fn show(&self) {
        match self {
            Self::Reply(got) => {
                let replayed = if got.replayed { ", replayed" } else { "" };
                say(format_args!(
                    "  got       {}{replayed}  {}",
                    got.status,
                    got.heard.words()
                ));
                if let Some(seconds) = &got.retry_after {
                    say(format_args!("            retry after {seconds} s"));
                }
                say(format_args!("            {}", got.body.get()));
            }
            Self::Message(got) => {
                say(format_args!("  got       {}", iso8583::words(&got.heard)));
                say(format_args!("            {}", got.message));
            }
            Self::Closed { closed } => say(format_args!("  got       no answer: {closed}")),
        }
    }
}

/// The bytes as they are, or as a text where they are no JSON.
fn raw(body: &Bytes) -> Box<RawValue> {
    let text = String::from_utf8_lossy(body).into_owned();
    let whole = RawValue::from_string(text.clone());
    whole
        .or_else(|_| to_raw_value(&text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}
