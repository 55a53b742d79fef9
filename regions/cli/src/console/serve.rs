//! Serves the page: HTTP/1.1, plain, on loopback, for a handful of browsers.
//!
//! The edge's server does not stream, and an edge that streams is not wanted; so this is a small one of
//! its own. It reads no body and answers GET alone. Bounded: connections, streams of events, the time
//! for a head, the life of a connection and of a stream. A stream holds nothing but what its browser
//! has: who reads slowly misses states, never delays one. A request that names another host is refused,
//! or else any page in the operator's browser could read this one through a name of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::page::{self, Page};

/// Connections at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Of them, streams of events; another is refused.
const STREAMS_MAX: usize = 16;
/// For a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Life of a stream; the browser comes again.
const STREAM_LIFE: Duration = Duration::from_secs(600);
/// Life of a connection, whatever is on it.
const CONNECTION_LIFE: Duration = Duration::from_secs(660);
/// For connections to end, once stopping.
const GRACE: Duration = Duration::from_secs(3);
/// When accepting fails, it is tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is served.
#[derive(Debug)]
pub struct Shown {
    /// The page.
    pub page: Page,
    /// The state it was made of, as JSON.
    pub json: Bytes,
}

struct Shared {
    shown: watch::Receiver<Arc<Shown>>,
    policy: HeaderValue,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

/// A browser's stream of events.
struct Stream {
    shown: watch::Receiver<Arc<Shown>>,
    /// What the browser has.
    sent: BTreeMap<&'static str, Arc<str>>,
    until: Instant,
    stop: CancellationToken,
    is_new: bool,
    _permit: OwnedSemaphorePermit,
}

/// Serves until `stop`, then ends what is open.
pub async fn serve(
    listener: TcpListener,
    shown: watch::Receiver<Arc<Shown>>,
    stop: CancellationToken,
) {
    let policy = HeaderValue::from_str(&page::policy());
    let shared = Arc::new(Shared {
        shown,
        policy: policy.unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'")),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        stop,
    });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Some((stream, slot)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    shared.connection(stream).await;
                    drop(slot);
                });
            }
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(left = connections.len(), "connections did not end in time");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept");
            None
        }
    }
}

// === impl Shared ===

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let shared = Arc::clone(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = shared.respond(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let life = tokio::time::sleep(CONNECTION_LIFE);
        tokio::select! {
            ended = &mut connection => return said(ended),
            () = life => return,
            () = self.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(GRACE, connection).await {
            said(ended);
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut response = if !is_for_loopback(request.headers()) {
            text(StatusCode::MISDIRECTED_REQUEST, "ask for localhost\n")
        } else if request.method() != Method::GET {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "this console only reads\n");
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
            refused
        } else {
            match request.uri().path() {
                "/" => self.page(),
                "/state.json" => {
                    let json = self.shown.borrow().json.clone();
                    typed(
                        StatusCode::OK,
                        "application/json",
                        Full::new(json).boxed_unsync(),
                    )
                }
                "/events" => self.events(),
                _ => text(
                    StatusCode::NOT_FOUND,
                    "there is /, /events and /state.json\n",
                ),
            }
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let same_origin = HeaderValue::from_static("same-origin");
        headers.insert("cross-origin-resource-policy", same_origin);
        response
    }

    fn page(&self) -> Response<Body> {
        let shown = Arc::clone(&self.shown.borrow());
        match shown.page.html() {
            Ok(html) => {
                let body = Full::new(Bytes::from(html)).boxed_unsync();
                typed(StatusCode::OK, "text/html; charset=utf-8", body)
            }
            Err(error) => {
                tracing::error!(%error, "the page cannot be rendered");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the page cannot be rendered\n",
                )
            }
        }
    }

    fn events(&self) -> Response<Body> {
        let Ok(permit) = Arc::clone(&self.streams).try_acquire_owned() else {
            let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, "too many browsers\n");
            refused
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return refused;
        };
        let Some(until) = Instant::now().checked_add(STREAM_LIFE) else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the clock is at its end\n",
            );
        };
        let stream = Stream {
            shown: self.shown.clone(),
            sent: BTreeMap::new(),
            until,
            stop: self.stop.clone(),
            is_new: true,
            _permit: permit,
        };
        let frames = stream::unfold(stream, |mut stream| async move {
            let event = stream.next().await?;
            Some((Ok::<_, Infallible>(Frame::data(event)), stream))
        });
        typed(
            StatusCode::OK,
            "text/event-stream",
            StreamBody::new(frames).boxed_unsync(),
        )
    }
}

// === impl Stream ===

impl Stream {
    /// The next event: what changed since the last, as soon as there is something newer.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_new {
            self.is_new = false;
            self.shown.mark_unchanged();
        } else {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                changed = self.shown.changed() => changed.ok()?,
            }
        }
        let shown = Arc::clone(&self.shown.borrow());
        let mut parts = BTreeMap::new();
        for part in &shown.page.parts {
            if self.sent.get(part.name) != Some(&part.html) {
                self.sent.insert(part.name, Arc::clone(&part.html));
                parts.insert(part.name, part.html.as_ref());
            }
        }
        // On one line: JSON escapes line ends.
        let data = json!({ "at": shown.page.at, "parts": parts });
        Some(Bytes::from(format!("event: parts\ndata: {data}\n\n")))
    }
}

fn said(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Whether a request names this machine, by whatever port: it may come through a tunnel.
fn is_for_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority: Option<http::uri::Authority> = host.and_then(|host| host.parse().ok());
    let Some(authority) = authority else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let address: Result<IpAddr, _> = host.parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(words.as_bytes())).boxed_unsync();
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_for_this_machine_by_its_host() {
        let check = |host: Option<&'static str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(HOST, HeaderValue::from_static(host));
            }
            assert_eq!(is_for_loopback(&headers), expected, "{host:?}");
        };
        for host in [
            "localhost:8090",
            "LOCALHOST",
            "127.0.0.1:9",
            "127.8.8.8",
            "[::1]:8090",
        ] {
            check(Some(host), true);
        }
        for host in [
            "evil.example:8090",
            "10.0.0.1",
            "localhost.evil.example",
            "[::2]:1",
            "",
        ] {
            check(Some(host), false);
        }
        check(None, false);
    }
}
