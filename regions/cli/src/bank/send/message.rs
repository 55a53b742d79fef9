//! One message of ISO 8583, and its answer.

use anyhow::Context;
use serde::Serialize;
use standin_edge::iso8583::{Message, Mti};

use super::super::format::Heard;
use super::super::format::iso8583::{self, APPROVED, Name, Shown};
use super::{Args, exit_code, wrong_usage};
use crate::out::{say, say_json};

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    heard: Heard,
    sent: Shown,
    got: Shown,
}

/// Sends what the arguments say, and shows the answer.
pub(super) async fn send(args: &Args) -> anyhow::Result<u8> {
    let made = message(args).and_then(|message| Ok((args.door.line()?, message)));
    let (target, message) = match made {
        Ok(made) => made,
        Err(error) => return Ok(wrong_usage(&error)),
    };
    let lines = args.door.tls.lines(&target)?;
    let bytes = message.encode(args.agreed.encoding);
    let replied = lines.ask(&bytes, args.patience()).await;
    let read = replied
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(iso8583::answer(&message, &bytes, args.agreed)?));
    let reply = match read {
        Ok(reply) => reply,
        Err(error) => {
            eprintln!("no answer: {error:#}");
            return Ok(1);
        }
    };
    let heard = iso8583::heard(&reply);
    let is_done = heard.verdict.is_none() && reply.text(39) == Some(APPROVED);
    let code = if is_done { 0 } else { exit_code(&heard) };
    show(args, heard, &message, &reply)?;
    Ok(code)
}

fn message(args: &Args) -> anyhow::Result<Message> {
    if let Some(given) = args.given()? {
        let text = String::from_utf8(given).ok();
        return iso8583::of_json(&text.context("--body: not UTF-8")?);
    }
    let name = match &args.payment.transaction_id {
        Some(key) => key.parse()?,
        None => Name::fresh(),
    };
    let layout = args.agreed.card_acceptor;
    iso8583::authorization(Mti::AuthorizationRequest, &args.payment, &name, layout)
}

fn show(args: &Args, heard: Heard, message: &Message, reply: &Message) -> anyhow::Result<()> {
    let (sent, got) = (Shown::of(message), Shown::of(reply));
    if args.json {
        return say_json(&Told { heard, sent, got });
    }
    say(iso8583::words(&heard));
    say(format_args!("sent  {sent}"));
    say(format_args!("got   {got}"));
    Ok(())
}
