//! The operators' listener: health, status, metrics, orders. It is on loopback, or each operator shows
//! a certificate that names them, `standin://operator/<name>`: then that is who orders, whatever the
//! body says.
//!
//! A GET changes nothing. An order is a POST with JSON `{"operator":…,"reason":…}`, both required:
//! they go to the audit (a scrub's and those about drills to the edge's log lines: they change nothing that
//! is kept). One about standing in
//! may be given for a time (`"for_ms":…`) and ends by itself. What is asked or
//! ordered is the application's ([`Control`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use standin_core::BoxFuture;
use standin_core::entry::StandInMode;
use standin_core::id::TransactionId;

use crate::adapter::require_json;
use crate::metrics::Metrics;
use crate::played::{Fault, LASTS_MAX, LASTS_MIN, PlayOrder, Shown};
use crate::problem::Problem;
use crate::server::{Handler, Request};

/// Longest name of an operator and longest reason, in bytes.
const TEXT_BYTES_MAX: usize = 500;
/// What an order may be given for.
const ORDER_LASTS_MIN: Duration = Duration::from_secs(1);
const ORDER_LASTS_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What the name in an operator's certificate begins with.
pub const OPERATOR: &str = "standin://operator/";

/// What the running edge lets operators see and order.
pub trait Control: Send + Sync + 'static {
    /// Whether this process should go on living; an error says why not.
    fn live(&self) -> Result<(), String>;

    /// Whether banks should be sent here, part by part.
    fn ready(&self) -> Readiness;

    /// The status page: rung, breaker, log, drain, trip-cache age, exposure, alarms.
    fn status(&self) -> BoxFuture<'_, Value>;

    /// Called before a scrape, to set gauges that nobody else keeps current.
    fn refresh_metrics(&self) {}

    /// Sets who decides about standing in, until another order or for so long.
    fn stand_in(
        &self,
        mode: StandInMode,
        lasts: Option<Duration>,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>>;

    /// Lets the stored 500 of a payment give way to the answer that was committed.
    fn clear_answer(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<Value, Problem>>;

    /// Puts a tombstone on a payment whose hold got no outcome.
    fn tombstone(
        &self,
        id: TransactionId,
        order: Order,
    ) -> BoxFuture<'_, Result<TombstonePlaced, Problem>>;

    /// Changes who keeps the region's log.
    fn change_members(&self, order: MemberOrder) -> BoxFuture<'_, Result<MembersChanged, Problem>>;

    /// Reads what is durable of the log here again, and says what does not verify.
    fn scrub(&self, order: Order) -> BoxFuture<'_, Result<Value, Problem>>;

    /// Begins to play a fault on this edge, for a drill.
    fn begin_fault(&self, order: PlayOrder) -> Result<Shown, Problem>;

    /// Ends the fault of this number, or whichever is played.
    fn end_fault(&self, number: Option<u64>, order: Order) -> Result<Shown, Problem>;
}

/// Whether banks should be sent to an edge. Postgres is no part of it: standing in for it is what an
/// edge is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// It can decide and write ahead, and is not stopping.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// It knows stores and its past, and has room for answers.
    pub decide: bool,
    /// Its log has a leader, room and a disk that works.
    pub write_ahead: bool,
    /// The trips that it sees are fresh. Without them it answers, and poorly: whoever sends banks
    /// elsewhere for it has to know that it is better there.
    pub fresh_trips: bool,
    /// It takes connections, asks its clients to leave, and will be gone soon.
    pub stopping: bool,
}

/// A change of who keeps the region's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    /// A learner gets a vote.
    Add,
    /// A member leaves.
    Remove,
}

/// An order to change who keeps the region's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberOrder {
    /// What.
    pub change: MemberChange,
    /// The member's number.
    pub node: u64,
    /// Whatever speaks against it that an operator may know better.
    pub force: bool,
    /// Who, and why.
    pub order: Order,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MembersChanged {
    /// What was ordered.
    pub change: MemberChange,
    /// The member's number.
    pub node: u64,
    /// It was not so before.
    pub changed: bool,
    /// Something spoke against it.
    pub forced: bool,
    /// Who votes now.
    pub keepers: BTreeSet<u64>,
    /// So many keepers may fail at once before nothing is committed.
    pub tolerates: usize,
}

/// What came of a tombstone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TombstonePlaced {
    /// It is the payment's first entry in the log: the payment is never answered.
    First,
    /// The payment was answered before.
    Answered,
}

/// What the order to place a tombstone replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TombstoneReply {
    /// What came of it.
    pub placed: TombstonePlaced,
}

/// Who orders something, and why.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Order {
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// Answers on the admin listener.
pub struct Admin {
    control: Arc<dyn Control>,
    metrics: Arc<Metrics>,
    routes: matchit::Router<Route>,
}

#[derive(Clone, Copy)]
enum Route {
    Live,
    Ready,
    Status,
    Metrics,
    StandIn,
    ClearAnswer,
    Tombstone,
    Members(MemberChange),
    Scrub,
    BeginFault,
    EndFault,
}

/// The body of an order to change the members.
#[derive(Deserialize)]
struct MemberBody {
    node: u64,
    #[serde(default)]
    force: bool,
    operator: String,
    reason: String,
}

// === impl Route ===

impl Route {
    const fn is_order(self) -> bool {
        match self {
            Self::StandIn
            | Self::ClearAnswer
            | Self::Tombstone
            | Self::Members(_)
            | Self::Scrub
            | Self::BeginFault
            | Self::EndFault => true,
            Self::Live | Self::Ready | Self::Status | Self::Metrics => false,
        }
    }
}

// === impl Admin ===

impl Admin {
    /// Answers for this edge.
    pub fn new(control: Arc<dyn Control>, metrics: Arc<Metrics>) -> Self {
        let mut routes = matchit::Router::new();
        for (path, route) in [
            ("/livez", Route::Live),
            ("/readyz", Route::Ready),
            ("/statusz", Route::Status),
            ("/metrics", Route::Metrics),
            ("/stand-in/{mode}", Route::StandIn),
            ("/answers/{id}/clear", Route::ClearAnswer),
            ("/holds/{id}/tombstone", Route::Tombstone),
            ("/wal/scrub", Route::Scrub),
            ("/drill/begin", Route::BeginFault),
            ("/drill/end", Route::EndFault),
            ("/wal/members/add", Route::Members(MemberChange::Add)),
            ("/wal/members/remove", Route::Members(MemberChange::Remove)),
        ] {
            routes
                .insert(path, route)
                .expect("the routes do not overlap; a test asks each");
        }
        Self {
            control,
            metrics,
            routes,
        }
    }

    async fn respond(&self, request: Request) -> Result<Response<Bytes>, Problem> {
        if request.peer_name.is_some() && certified(&request).is_none() {
            return Err(Problem::Unauthorized);
        }
        let path = request.parts.uri.path().to_owned();
        let found = self.routes.at(&path).map_err(|_| Problem::NotFound)?;
        let orders = found.value.is_order();
        let method = &request.parts.method;
        if orders && method != Method::POST {
            return Err(Problem::MethodNotAllowed { allow: "POST" });
        }
        if !orders && method != Method::GET && method != Method::HEAD {
            return Err(Problem::MethodNotAllowed { allow: "GET, HEAD" });
        }
        match found.value {
            Route::Live => Ok(health(self.control.live())),
            Route::Ready => {
                let ready = self.control.ready();
                let status = match ready.ok {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                Ok(page(status, &json!(ready)))
            }
            Route::Status => Ok(page(StatusCode::OK, &self.control.status().await)),
            Route::Metrics => self.metrics(),
            Route::StandIn => {
                let mode = match found.params.get("mode") {
                    Some("auto") => StandInMode::Auto,
                    Some("force") => StandInMode::Force,
                    Some("forbid") => StandInMode::Forbid,
                    _ => return Err(Problem::NotFound),
                };
                let (lasts, order) = stand_in_order(mode, &request)?;
                let done = self.control.stand_in(mode, lasts, order).await?;
                Ok(page(StatusCode::OK, &done))
            }
            Route::ClearAnswer => {
                let id = payment(&found.params)?;
                let done = self.control.clear_answer(id, order(&request)?).await?;
                Ok(page(StatusCode::OK, &done))
            }
            Route::Tombstone => {
                let id = payment(&found.params)?;
                let placed = self.control.tombstone(id, order(&request)?).await?;
                Ok(page(StatusCode::OK, &json!(TombstoneReply { placed })))
            }
            Route::Scrub => {
                let scrubbed = self.control.scrub(order(&request)?).await?;
                Ok(page(StatusCode::OK, &scrubbed))
            }
            Route::BeginFault => {
                let begun = self.control.begin_fault(play_order(&request)?)?;
                Ok(page(StatusCode::OK, &json!(begun)))
            }
            Route::EndFault => {
                let (number, order) = end_order(&request)?;
                let ended = self.control.end_fault(number, order)?;
                Ok(page(StatusCode::OK, &json!(ended)))
            }
            Route::Members(change) => {
                let order = member_order(*change, &request)?;
                let changed = self.control.change_members(order).await?;
                Ok(page(StatusCode::OK, &json!(changed)))
            }
        }
    }

    fn metrics(&self) -> Result<Response<Bytes>, Problem> {
        self.control.refresh_metrics();
        let text = self.metrics.render().map_err(|error| {
            tracing::error!(%error, "metrics cannot be rendered");
            Problem::Internal
        })?;
        let mut response = Response::new(Bytes::from(text));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }
}

impl Handler for Admin {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            // Whoever reaches this listener is an operator: on loopback, or with a certificate.
            request.vouch.known();
            let head = request.parts.method == Method::HEAD;
            let response = self.respond(request).await;
            let response = response.unwrap_or_else(|problem| problem.to_response());
            if head {
                response.map(|_| Bytes::new())
            } else {
                response
            }
        })
    }

    fn connection_refused(&self) {
        self.metrics.connection_refused();
    }

    fn handshake_failed(&self) {
        self.metrics.handshake_failed();
    }
}

/// The payment that a path names.
fn payment(params: &matchit::Params<'_, '_>) -> Result<TransactionId, Problem> {
    let id = params.get("id").and_then(|id| id.parse().ok());
    id.ok_or(Problem::NotFound)
}

/// Reads who and why. JSON is required: a page in an operator's browser cannot send it here without
/// asking first.
fn order(request: &Request) -> Result<Order, Problem> {
    require_json(&request.parts.headers)?;
    let order: Order = serde_json::from_slice(&request.body).map_err(|_| Problem::Malformed {
        detail: "must be {\"operator\":…,\"reason\":…}",
    })?;
    checked(request, order)
}

/// As [`order`], with the time that it is given for.
fn stand_in_order(
    mode: StandInMode,
    request: &Request,
) -> Result<(Option<Duration>, Order), Problem> {
    #[derive(Deserialize)]
    struct Lasts {
        #[serde(default)]
        for_ms: Option<u64>,
    }
    let order = order(request)?;
    let read: Result<Lasts, _> = serde_json::from_slice(&request.body);
    let Lasts { for_ms } = read.map_err(|_| Problem::Malformed {
        detail: "for_ms must be a whole number of milliseconds",
    })?;
    match for_ms.map(Duration::from_millis) {
        None => Ok((None, order)),
        Some(_) if mode == StandInMode::Auto => Err(Problem::Field {
            field: "for_ms",
            detail: "auto is what an order ends in: it has no end itself",
        }),
        Some(lasts) if !(ORDER_LASTS_MIN..=ORDER_LASTS_MAX).contains(&lasts) => {
            Err(Problem::Field {
                field: "for_ms",
                detail: "an order is given for a second at least and seven days at most",
            })
        }
        Some(lasts) => Ok((Some(lasts), order)),
    }
}

/// The operator that the connection's certificate names.
fn certified(request: &Request) -> Option<&str> {
    let name = request.peer_name.as_deref()?;
    name.strip_prefix(OPERATOR).filter(|name| !name.is_empty())
}

fn member_order(change: MemberChange, request: &Request) -> Result<MemberOrder, Problem> {
    require_json(&request.parts.headers)?;
    let read: Result<MemberBody, _> = serde_json::from_slice(&request.body);
    let MemberBody {
        node,
        force,
        operator,
        reason,
    } = read.map_err(|_| Problem::Malformed {
        detail: "must be {\"node\":…,\"operator\":…,\"reason\":…,\"force\":true or false}",
    })?;
    Ok(MemberOrder {
        change,
        node,
        force,
        order: checked(request, Order { operator, reason })?,
    })
}

/// An order to play a fault: what, how long, who and why.
fn play_order(request: &Request) -> Result<PlayOrder, Problem> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(flatten)]
        fault: Fault,
        for_ms: u64,
    }
    let order = order(request)?;
    let read: Result<Body, _> = serde_json::from_slice(&request.body);
    let Body { fault, for_ms } = read.map_err(|_| Problem::Malformed {
        detail: "must be {\"fault\":…,\"for_ms\":…,\"operator\":…,\"reason\":…}, with delay_ms or percent where the fault has them",
    })?;
    let out_of_range = |(field, detail)| Problem::Field { field, detail };
    fault.check().map_err(out_of_range)?;
    let lasts = Duration::from_millis(for_ms);
    if !(LASTS_MIN..=LASTS_MAX).contains(&lasts) {
        let detail = "a fault is played for a second at least and ten minutes at most";
        return Err(out_of_range(("for_ms", detail)));
    }
    Ok(PlayOrder {
        fault,
        lasts,
        order,
    })
}

/// An order to end a fault; without its number it is about whichever is played.
fn end_order(request: &Request) -> Result<(Option<u64>, Order), Problem> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        number: Option<u64>,
    }
    let order = order(request)?;
    let read: Result<Body, _> = serde_json::from_slice(&request.body);
    let Body { number } = read.map_err(|_| Problem::Malformed {
        detail: "number must be a whole number",
    })?;
    Ok((number, order))
}

fn checked(request: &Request, mut order: Order) -> Result<Order, Problem> {
    if let Some(operator) = certified(request) {
        order.operator = operator.to_owned();
    }
    for (field, text) in [("operator", &order.operator), ("reason", &order.reason)] {
        if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0') {
            return Err(Problem::Field {
                field,
                detail: "must have 1 to 500 bytes",
            });
        }
    }
    Ok(order)
}

fn health(state: Result<(), String>) -> Response<Bytes> {
    match state {
        Ok(()) => page(StatusCode::OK, &json!({"ok": true})),
        Err(why) => page(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"ok": false, "why": why}),
        ),
    }
}

fn page(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
