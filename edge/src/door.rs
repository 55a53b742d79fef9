//! The banks' door: routes, steps 1 to 3 of a request, and what the bank reads at the end.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Response};
use standin_core::BoxFuture;
use standin_core::answer::Answer;
use standin_core::authorization::Authorization;
use standin_core::clock::{Clock, Timestamp};
use standin_core::entry::Entry;
use standin_core::money::Money;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::adapter::{
    Adapter, Asked, Message, Rendered, Reply, Resource, Understood, require_json,
};
use crate::admission::{Admission, Arrival, Place, Shed};
use crate::alarm::{Alarm, Alarms};
use crate::authenticate::{AuthenticationError, Authenticator, Presented, Sender};
use crate::budget::Budget;
use crate::config::BankConfig;
use crate::lag::Lag;
use crate::limit::Limits;
use crate::log::Log;
use crate::metrics::{Answered, Metrics, Step};
use crate::observer::{Notes, Observer, Seen};
use crate::path::{Given, Path, Refusal};
use crate::problem::{Problem, Unavailable};
use crate::server::{Handler, Request};

mod iso8583;

/// Tells a bank that it reads an answer given before.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Answers banks.
pub struct Door {
    /// Knows the banks and their secrets.
    pub authenticator: Authenticator,
    /// Understands every bank's messages instead of its own format (for tests that fail on purpose).
    pub adapter: Option<Arc<dyn Adapter>>,
    /// Steps 4 to 11.
    pub path: Arc<Path>,
    /// Time of day, for signatures.
    pub clock: Arc<dyn Clock>,
    /// Where faults after a commit are kept.
    pub log: Arc<Log>,
    /// Limits by address.
    pub limits: Arc<Limits>,
    /// Whose request is taken on.
    pub admission: Admission,
    /// How late this process is.
    pub lag: Arc<Lag>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Stored faults are alarmed.
    pub alarms: Arc<Alarms>,
    /// Sees what became of each request; in production there is none.
    pub observer: Option<Arc<dyn Observer>>,
}

// === impl Door ===

impl Handler for Door {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        let span = info_span!(target: "standin::path", "authorization", bank = tracing::field::Empty,
            transaction = tracing::field::Empty, rung = tracing::field::Empty, decision = tracing::field::Empty);
        Box::pin(
            async move {
                let mut notes = Notes::new(self.observer.is_some(), request.parts.uri.path());
                let response = match self.authorize(request, &mut notes).await {
                    Ok(response) => response,
                    Err(problem) => {
                        self.metrics.refused(&problem);
                        notes.problem(&problem);
                        problem.to_response()
                    }
                };
                if let (Some(observer), Some(seen)) = (&self.observer, notes.seen()) {
                    observer.saw(seen);
                }
                response
            }
            .instrument(span),
        )
    }

    fn turned_away(&self, problem: &Problem) {
        self.metrics.refused(problem);
        if let Some(observer) = &self.observer {
            observer.saw(&Seen::turned_away(problem));
        }
    }

    fn connection_refused(&self) {
        self.metrics.connection_refused();
    }

    fn handshake_failed(&self) {
        self.metrics.handshake_failed();
    }
}

impl Door {
    async fn authorize(
        &self,
        request: Request,
        notes: &mut Notes,
    ) -> Result<Response<Bytes>, Problem> {
        let Request {
            parts,
            body,
            peer,
            peer_name,
            received,
            complete,
            vouch,
        } = request;
        let (slug, resource) = route(parts.uri.path()).ok_or(Problem::NotFound)?;
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
        let sender = self.authenticate(&presented, now);
        notes.authentic(sender.as_ref().map(|_| ()).map_err(|error| *error));
        let Sender { bank, message_id } =
            sender.map_err(|error| self.not_authentic(error, peer.ip()))?;
        vouch.known();
        tracing::Span::current().record("bank", bank.slug.as_str());
        require_json(&parts.headers)?;
        let message = Message {
            bank,
            id: message_id,
            resource,
            body: &body,
            at: now,
        };
        let Understood { asked, reply } = match &self.adapter {
            Some(adapter) => adapter.understand(&message),
            None => bank.format.understand(&message),
        }?;
        notes.asked(&asked);
        let budget = Budget::new(received, bank, self.lag.lately());
        let decided = match &asked {
            Asked::Authorization(asked) => Some(asked.as_ref()),
            _ => None,
        };
        let _place = match self.place(bank, decided, complete, &budget).await {
            Ok(place) => place,
            Err(problem) => return self.in_words(problem, reply.as_ref(), notes),
        };
        let replied = match asked {
            Asked::Authorization(asked) => {
                let amount = asked.amount;
                match self.path.answer(*asked, budget).await {
                    Ok(given) => {
                        notes.answer(given.answer(), given.is_replayed());
                        let asked = (amount, reply.as_ref());
                        let deadline = budget.deadline();
                        return self.respond(&given, asked, received, deadline).await;
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            word => self.record(word, reply.as_ref(), budget, notes).await,
        };
        match replied {
            Ok(rendered) => Ok(response(rendered)),
            Err(refusal) => self.in_words(problem_of(&refusal), reply.as_ref(), notes),
        }
    }

    fn authenticate<'a>(
        &'a self,
        presented: &Presented<'a>,
        now: Timestamp,
    ) -> Result<Sender<'a>, AuthenticationError> {
        let begun = Instant::now();
        let sender = self.authenticator.authenticate(presented, now);
        self.metrics.step(Step::Authenticate, begun.elapsed());
        sender
    }

    /// A place for a request, which is `asked` if it asks for a decision.
    async fn place(
        &self,
        bank: &BankConfig,
        asked: Option<&Authorization>,
        complete: Instant,
        budget: &Budget,
    ) -> Result<Place, Problem> {
        let arrival = Arrival {
            complete,
            deadline: budget.deadline(),
        };
        let has_answer = || asked.is_some_and(|asked| self.path.has_answer(asked));
        let place = self.admission.admit(&bank.slug, arrival, has_answer).await;
        place.map_err(shed_problem)
    }

    /// Takes a word of the bank's down that asks for no decision.
    async fn record(
        &self,
        word: Asked,
        reply: &dyn Reply,
        budget: Budget,
        notes: &mut Notes,
    ) -> Result<Rendered, Refusal> {
        match word {
            Asked::TakeBack(asked) => {
                let taken = self.path.take_back(&asked, &budget).await?;
                notes.taken_back(&taken);
                return Ok(reply.taken_back(asked.payment, &taken));
            }
            Asked::Advice(asked) => self.path.take_advice(*asked, budget).await?,
            Asked::Settlement(moved) => self.path.settle(*moved, &budget).await?,
            // Of what the bank declined there is nothing to keep; what is asked was decided.
            Asked::Notice | Asked::Authorization(_) => {}
        }
        notes.recorded();
        Ok(reply.recorded())
    }

    /// In the format's own words, where it has any.
    fn in_words(
        &self,
        problem: Problem,
        reply: &dyn Reply,
        notes: &mut Notes,
    ) -> Result<Response<Bytes>, Problem> {
        let Some(rendered) = reply.problem(&problem) else {
            return Err(problem);
        };
        self.metrics.refused(&problem);
        notes.problem(&problem);
        Ok(response(rendered))
    }

    /// Renders an answer. It is durable by now: if we fail here, the payment's answer is a 500 from
    /// now on, on every retry, until an operator clears it.
    async fn respond(
        &self,
        given: &Given,
        (asked, reply): (Money, &dyn Reply),
        received: Instant,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Problem> {
        let answer = given.answer();
        let transaction_id = answer.transaction_id;
        name(answer);
        if given.is_faulted() {
            return Err(Problem::Faulted { transaction_id });
        }
        let rendered = catch_unwind(AssertUnwindSafe(|| reply.answer(answer, asked)));
        let Ok(rendered) = rendered else {
            return Err(self.keep_fault(given, deadline).await);
        };
        let mut response = response(rendered);
        if given.is_replayed() {
            let headers = response.headers_mut();
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        self.count(given, received);
        Ok(response)
    }

    fn count(&self, given: &Given, received: Instant) {
        if given.is_replayed() {
            return self.metrics.replayed();
        }
        let answer = given.answer();
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
}

/// Names the answer in the request's span.
fn name(answer: &Answer) {
    let span = tracing::Span::current();
    let transaction = tracing::field::display(answer.transaction_id);
    span.record("transaction", transaction);
    span.record("rung", answer.rung.as_str());
    span.record("decision", answer.verdict.as_str());
}

fn response(rendered: Rendered) -> Response<Bytes> {
    let mut response = Response::new(rendered.body);
    *response.status_mut() = rendered.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = rendered.header {
        headers.insert(name, value);
    }
    response
}

fn shed_problem(shed: Shed) -> Problem {
    tracing::debug!(%shed, "a request is shed");
    Problem::unavailable(match shed {
        Shed::QueueFull | Shed::ShareFull | Shed::Waited | Shed::Overloaded => {
            Unavailable::Overloaded
        }
        Shed::Deadline => Unavailable::Deadline,
    })
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
        Refusal::TripUnseen(_) | Refusal::CardUnseen(_) | Refusal::PaymentUnseen(_) => {
            unavailable(Unavailable::PrimaryAway)
        }
        Refusal::StandInForbidden(_) => unavailable(Unavailable::StandInForbidden),
        Refusal::ReserveSpent(_) => unavailable(Unavailable::ReserveSpent),
        Refusal::LogFull => unavailable(Unavailable::LogFull),
        Refusal::Unknown => unavailable(Unavailable::LogTimeout),
        Refusal::Deadline => unavailable(Unavailable::Deadline),
        Refusal::NotReady => unavailable(Unavailable::NotReady),
        Refusal::Released => unavailable(Unavailable::Released),
        Refusal::Encode => Problem::Internal,
        Refusal::NoSuchPayment => Problem::NotFound,
        Refusal::OtherCurrency => Problem::Field {
            field: "currency",
            detail: "must be the payment's",
        },
    }
}

/// The bank's slug, and what of the bank's the path names.
fn route(path: &str) -> Option<(&str, Resource<'_>)> {
    let mut parts = path.strip_prefix("/v1/banks/")?.split('/');
    let slug = parts.next().filter(|slug| !slug.is_empty())?;
    let kind = parts.next()?;
    let payment = parts.next();
    let what = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let resource = match (kind, payment, what) {
        ("authorizations", None, _) => Resource::Authorizations,
        ("authorizations", Some(payment), Some("increments")) => Resource::Increments(payment),
        ("authorizations", Some(payment), Some("reversals")) => Resource::Reversals(payment),
        ("authorizations", Some(payment), Some("outcomes")) => Resource::Outcomes(payment),
        ("advices", None, _) => Resource::Advices,
        ("settlements", None, _) => Resource::Settlements,
        _ => return None,
    };
    Some((slug, resource))
}
