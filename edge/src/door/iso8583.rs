//! The same door for banks that speak ISO 8583 over TCP: who they are their connection's certificate
//! says, and what they are answered is field 39.

use bytes::Bytes;
use standin_core::BoxFuture;
use tracing::{Instrument, info_span};

use super::{Door, name, problem_of};
use crate::adapter::Format;
use crate::adapter::iso8583::{self, Asked};
use crate::authenticate::{AuthenticationError, certificate_name};
use crate::budget::Budget;
use crate::config::BankConfig;
use crate::iso8583::{DecodeError, Message, ReplyError, Undecoded};
use crate::observer::Notes;
use crate::problem::Problem;
use crate::server::frames::{Frame, Frames, Reply};

impl Frames for Door {
    fn answer(&self, frame: Frame) -> BoxFuture<'_, Reply> {
        let span = info_span!(target: "standin::path", "message", bank = tracing::field::Empty,
            transaction = tracing::field::Empty, rung = tracing::field::Empty, decision = tracing::field::Empty);
        Box::pin(
            async move {
                let mut notes = Notes::of_message(self.observer.is_some());
                let reply = self.answer_frame(frame, &mut notes).await;
                if let (Some(observer), Some(seen)) = (&self.observer, notes.seen()) {
                    observer.saw(seen);
                }
                reply
            }
            .instrument(span),
        )
    }
}

impl Door {
    async fn answer_frame(&self, frame: Frame, notes: &mut Notes) -> Reply {
        let Some(bank) = self.sender(frame.peer_name.as_deref()) else {
            let error = AuthenticationError::Certificate;
            let problem = self.not_authentic(error, frame.peer.ip());
            notes.authentic(Err(error));
            self.refused(&problem, notes);
            return Reply::Close;
        };
        notes.authentic(Ok(()));
        tracing::Span::current().record("bank", bank.slug.as_str());
        let answered = match Message::decode(&frame.bytes, bank.encoding) {
            Ok(message) => self.answer_message(bank, &message, &frame, notes).await,
            Err(undecoded) => self.not_read(&undecoded, notes),
        };
        match answered {
            Ok(Some(reply)) => Reply::Bytes(Bytes::from(reply.encode(bank.encoding))),
            Ok(None) => Reply::Nothing,
            Err(error) => {
                tracing::error!(%error, "an answer does not fit its fields");
                self.refused(&Problem::Internal, notes);
                Reply::Nothing
            }
        }
    }

    fn refused(&self, problem: &Problem, notes: &mut Notes) {
        self.metrics.refused(problem);
        notes.problem(problem);
    }

    /// The bank whose certificate this connection shows; without TLS, on loopback, the only one.
    fn sender(&self, peer_name: Option<&str>) -> Option<&BankConfig> {
        let mut banks = self.authenticator.banks().iter();
        let speaks = |bank: &&BankConfig| bank.format == Format::Iso8583;
        match peer_name {
            Some(name) => banks
                .filter(speaks)
                .find(|bank| certificate_name(&bank.slug) == name),
            None => banks.find(|bank| speaks(bank) && !bank.mutual_tls),
        }
    }

    /// What could be read is answered, so that the bank need not wait.
    fn not_read(
        &self,
        undecoded: &Undecoded,
        notes: &mut Notes,
    ) -> Result<Option<Message>, ReplyError> {
        tracing::debug!(error = %undecoded.error, "a message is not read");
        let detail = "not a message as it was agreed";
        self.refused(&Problem::Malformed { detail }, notes);
        match (&undecoded.error, &undecoded.read) {
            (DecodeError::UnknownMti { .. }, _) | (_, None) => Ok(None),
            (_, Some(read)) if read.mti().response().is_none() => Ok(None),
            (_, Some(read)) => iso8583::plain(read, iso8583::FORMAT_ERROR).map(Some),
        }
    }

    async fn answer_message(
        &self,
        bank: &BankConfig,
        message: &Message,
        frame: &Frame,
        notes: &mut Notes,
    ) -> Result<Option<Message>, ReplyError> {
        let now = self.clock.now();
        let asked = match iso8583::understand(bank, &self.path.key, message, now) {
            Ok(asked) => asked,
            Err(code) => {
                let problem = Problem::Field {
                    field: "message",
                    detail: "not one that is answered here",
                };
                self.refused(&problem, notes);
                return iso8583::plain(message, code).map(Some);
            }
        };
        if let Some(asked) = self.observer.as_ref().and_then(|_| asked.in_common()) {
            notes.asked(&asked);
        }
        match asked {
            Asked::Answer => return Ok(None),
            Asked::Notice => {
                notes.recorded();
                return iso8583::plain(message, iso8583::APPROVED).map(Some);
            }
            Asked::Authorization(_) | Asked::Advice(_) | Asked::TakeBack(_) => {}
        }
        let budget = Budget::new(frame.received, bank, self.lag.lately());
        let decided = match &asked {
            Asked::Authorization(asked) => Some(asked.as_ref()),
            _ => None,
        };
        let reply = match self.place(bank, decided, frame.received, &budget).await {
            Ok(_place) => self.decide(message, asked, (budget, frame), notes).await,
            Err(problem) => Err(problem),
        };
        match reply {
            Ok(reply) => reply.map(Some),
            Err(problem) => {
                self.refused(&problem, notes);
                iso8583::plain(message, iso8583::problem_code(&problem)).map(Some)
            }
        }
    }

    async fn decide(
        &self,
        message: &Message,
        asked: Asked,
        (budget, frame): (Budget, &Frame),
        notes: &mut Notes,
    ) -> Result<Result<Message, ReplyError>, Problem> {
        let refused = |refusal| problem_of(&refusal);
        match asked {
            Asked::Authorization(asked) => {
                let amount = asked.amount;
                let given = self.path.answer(*asked, budget).await;
                let given = given.map_err(refused)?;
                let answer = given.answer();
                notes.answer(answer, given.is_replayed());
                name(answer);
                if given.is_faulted() {
                    let transaction_id = answer.transaction_id;
                    return Err(Problem::Faulted { transaction_id });
                }
                self.count(&given, frame.received);
                return Ok(iso8583::render(message, answer, amount));
            }
            Asked::Advice(asked) => {
                let taken = self.path.take_advice(*asked, budget).await;
                taken.map_err(refused)?;
                notes.recorded();
            }
            Asked::TakeBack(asked) => {
                let taken = self.path.take_back(&asked, &budget).await;
                notes.taken_back(&taken.map_err(refused)?);
            }
            Asked::Notice | Asked::Answer => {}
        }
        Ok(iso8583::plain(message, iso8583::APPROVED))
    }
}
