//! Advices: a hold becomes final in a commit of its own, for an answer that no log commits.
//!
//! One pipelined transaction, as a hold is: the write, what was reversed of it before, and what is
//! there now. Holds may wait for nothing at COMMIT; an advice is an answer and waits for all that
//! makes a commit durable.

use deadpool_postgres::ClientWrapper;
use futures_util::future::try_join3;
use uuid::Uuid;

use super::super::rows::wrong;
use super::super::{Advice, Advised, AuthorizationState};
use super::decode::{AUTHORIZATION, authorization, fingerprint, get};
use super::epoch::{EPOCH, Epoch};
use super::final_rows::{ADVISE, Finals};
use super::hold::{Sent, committed, in_order, plain};
use super::link::Failure;
use super::reversals::APPLY;

/// Turns a hold into a final row, or says why not.
pub(super) async fn advise(
    client: &ClientWrapper,
    advice: &Advice,
    epoch: &Epoch,
) -> Result<Advised, Failure> {
    let Advice {
        proposal,
        answer,
        at,
    } = advice;
    let same = answer.transaction_id == proposal.transaction_id
        && answer.fingerprint == proposal.fingerprint
        && answer.shopper == proposal.request.shopper;
    let mut columns = Finals::default();
    if !same || columns.push(answer, proposal, None, *at).is_none() {
        return Err(wrong("an advice that answers another payment or does not fit").into());
    }
    let id = answer.transaction_id.to_uuid();
    let read = format!(
        "select x.fingerprint as claimed, {EPOCH}, {AUTHORIZATION} from transactions x \
         left join authorizations a on a.shopper_id = x.shopper_id \
         and a.transaction_id = x.transaction_id where x.transaction_id = $1"
    );
    let (write, apply, read) = try_join3(
        client.prepare_cached(&ADVISE),
        client.prepare_cached(APPLY),
        client.prepare_cached(&read),
    )
    .await?;
    let (log, ids, least) = (None::<Uuid>, vec![id], epoch.least());
    let mut params = columns.params(&log).to_vec();
    params.push(&least);
    let sent: Vec<Sent<'_>> = vec![
        Box::pin(plain(client, "BEGIN; SET LOCAL synchronous_commit = on")),
        Box::pin(client.query(&write, &params)),
        Box::pin(async { client.query(&apply, &[&ids]).await }),
        Box::pin(async { client.query(&read, &[&id]).await }),
        Box::pin(plain(client, "COMMIT")),
    ];
    let replies = committed(in_order(sent).await)?;
    let written = replies.get(1).is_some_and(|rows| !rows.is_empty());
    let Some(row) = replies.get(3).and_then(|rows| rows.first()) else {
        return Ok(Advised::NoHold);
    };
    epoch.learn(row)?;
    if fingerprint(row, "claimed")? != answer.fingerprint {
        return Ok(Advised::OtherFingerprint);
    }
    if written {
        return Ok(Advised::Final);
    }
    if get::<Option<&str>>(row, "state")?.is_none() {
        return Ok(Advised::NoHold);
    }
    let stored = authorization(row)?;
    Ok(match stored.state {
        AuthorizationState::Final | AuthorizationState::Reversed => {
            Advised::Stored(Box::new(stored.answer))
        }
        AuthorizationState::Released => Advised::Released,
        // A hold that came between the write and the look: nothing was changed.
        AuthorizationState::Held => Advised::NoHold,
    })
}
