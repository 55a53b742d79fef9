//! The banks' door: routes, steps 1 to 3 of a request, and what the bank reads at the end.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Response};
use standin_core::BoxFuture;
use standin_core::clock::Clock;
use standin_core::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::alarm::{Alarm, Alarms};
use crate::authenticate::{AuthenticationError, Authenticator, Presented, Sender};
use crate::budget::Budget;
use crate::limit::Limits;
use crate::log::Log;
use crate::metrics::{Answered, Metrics};
use crate::native::{Adapter, require_json};
use crate::path::{Given, Path, Refusal};
use crate::problem::{Problem, Unavailable};
use crate::server::{Handler, Request};

/// Tells a bank that it reads an answer given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Answers banks.
pub struct Door {
    /// Knows the banks and their secrets.
    pub authenticator: Authenticator,
    /// Understands their format.
    pub adapter: Arc<dyn Adapter>,
    /// Steps 4 to 11.
    pub path: Arc<Path>,
    /// Time of day, for signatures.
    pub clock: Arc<dyn Clock>,
    /// Where faults after a commit are kept.
    pub log: Arc<Log>,
    /// Limits by address.
    pub limits: Arc<Limits>,
    /// Authorizations that may be in progress at once; past it, requests are refused.
    pub in_progress: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Stored faults are alarmed.
    pub alarms: Arc<Alarms>,
}

// === impl Door ===

impl Handler for Door {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        let span = info_span!(target: "standin::path", "authorization", bank = tracing::field::Empty,
            transaction = tracing::field::Empty, rung = tracing::field::Empty, decision = tracing::field::Empty);
        Box::pin(
            async move {
                match self.authorize(request).await {
                    Ok(response) => response,
                    Err(problem) => {
                        self.metrics.refused(&problem);
                        problem.to_response()
                    }
                }
            }
            .instrument(span),
        )
    }

    fn turned_away(&self, problem: &Problem) {
        self.metrics.refused(problem);
    }

    fn connection_refused(&self) {
        self.metrics.connection_refused();
    }

    fn handshake_failed(&self) {
        self.metrics.handshake_failed();
    }
}

impl Door {
    async fn authorize(&self, request: Request) -> Result<Response<Bytes>, Problem> {
        let Request {
            parts,
            body,
            peer,
            peer_name,
            received,
        } = request;
        let slug = route(parts.uri.path()).ok_or(Problem::NotFound)?;
        if parts.method != Method::POST {
            return Err(Problem::MethodNotAllowed { allow: "POST" });
        }
        let now = self.clock.now();
        let presented = Presented {
            slug,
            parts: &parts,
            body: &body,
            peer_name: peer_name.as_deref(),
        };
        let Sender { bank, .. } = self
            .authenticator
            .authenticate(&presented, now)
            .map_err(|error| self.not_authentic(error, peer.ip()))?;
        tracing::Span::current().record("bank", bank.slug.as_str());
        let _permit = self.admit()?;
        require_json(&parts.headers)?;
        let authorization = self.adapter.understand(bank, &body, now)?;
        let budget = Budget::new(received, bank);
        let answered = self.path.answer(authorization, budget).await;
        let given = answered.map_err(|refusal| problem_of(&refusal))?;
        self.respond(&given, received, budget.deadline()).await
    }

    /// Renders an answer. It is durable by now: if we fail here, the payment's answer is a 500 from
    /// now on, on every retry, until an operator clears it.
    async fn respond(
        &self,
        given: &Given,
        received: Instant,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Problem> {
        let answer = given.answer();
        let transaction_id = answer.transaction_id;
        let span = tracing::Span::current();
        span.record("transaction", tracing::field::display(transaction_id));
        span.record("rung", answer.rung.as_str());
        span.record("decision", answer.verdict.as_str());
        if given.is_faulted() {
            return Err(Problem::Faulted { transaction_id });
        }
        let rendered = catch_unwind(AssertUnwindSafe(|| self.adapter.render(answer)));
        let Ok(rendered) = rendered else {
            return Err(self.keep_fault(given, deadline).await);
        };
        let mut response = Response::new(rendered.body);
        *response.status_mut() = rendered.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if given.is_replayed() {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        if given.is_replayed() {
            self.metrics.replayed();
        } else {
            self.metrics.answered(&Answered {
                bank: &answer.bank,
                rung: answer.rung,
                verdict: answer.verdict,
                reason: answer.reason,
                why: answer.why,
                took: received.elapsed(),
                trip_age_ms: answer.trip_age_ms,
            });
        }
        Ok(response)
    }

    /// The 500 is said only if it is durable; else the sender does not know, and a retry gets the
    /// answer.
    async fn keep_fault(&self, given: &Given, deadline: Instant) -> Problem {
        let id = given.answer().transaction_id;
        self.alarms.raise(
            Alarm::Faulted,
            "an answer could not be rendered; see the log",
        );
        tracing::error!(transaction = %id, "rendering an answer failed after its commit");
        match self.log.propose(&Entry::Faulted(id), deadline).await {
            Ok(_applied) => Problem::Faulted { transaction_id: id },
            Err(error) => {
                tracing::error!(%error, transaction = %id, "the fault is not stored");
                Problem::unavailable(Unavailable::LogTimeout)
            }
        }
    }

    /// Failed signatures are counted by address; past the limit they are answered 429.
    fn not_authentic(&self, error: AuthenticationError, peer: IpAddr) -> Problem {
        self.metrics.authentication_failed(error);
        if error == AuthenticationError::KeyMissing {
            // Ours to mend: it does not count against the sender.
            return error.into();
        }
        match self.limits.failed_signature(peer) {
            Ok(()) => error.into(),
            Err(often) => Problem::TooManyRequests {
                retry_after: often.retry_after,
            },
        }
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.in_progress)
            .try_acquire_owned()
            .map_err(|_full| Problem::unavailable(Unavailable::Overloaded))
    }
}

fn problem_of(refusal: &Refusal) -> Problem {
    tracing::debug!(%refusal, "no answer");
    let unavailable = Problem::unavailable;
    match refusal {
        Refusal::OtherFingerprint(id) => Problem::OtherFingerprint {
            transaction_id: *id,
        },
        Refusal::StillDeciding => unavailable(Unavailable::InFlight),
        Refusal::Limited { retry_after } => Problem::TooManyRequests {
            retry_after: *retry_after,
        },
        Refusal::TripUnseen(_) => unavailable(Unavailable::PrimaryAway),
        Refusal::StandInForbidden(_) => unavailable(Unavailable::StandInForbidden),
        Refusal::ReserveSpent(_) => unavailable(Unavailable::ReserveSpent),
        Refusal::LogFull => unavailable(Unavailable::LogFull),
        Refusal::Unknown => unavailable(Unavailable::LogTimeout),
        Refusal::Deadline => unavailable(Unavailable::Deadline),
        Refusal::NotReady => unavailable(Unavailable::NotReady),
        Refusal::Released => unavailable(Unavailable::Released),
        Refusal::Encode => Problem::Internal,
    }
}

/// The bank's slug of `/v1/banks/{bank}/authorizations`.
fn route(path: &str) -> Option<&str> {
    let slug = path
        .strip_prefix("/v1/banks/")?
        .strip_suffix("/authorizations")?;
    if slug.is_empty() || slug.contains('/') {
        None
    } else {
        Some(slug)
    }
}
