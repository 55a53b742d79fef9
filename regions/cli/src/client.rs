//! An HTTP client for load: a bounded pool of persistent connections, plain or over TLS, signed
//! requests, no retries.
//!
//! A request is sent once. Only one that provably never left (its connection was found closed) is
//! sent on another connection; whatever may have reached the server is the caller's to repeat.
//! Deliberately absent: redirects, HTTP/2.
//!
//! Beside it, for ISO 8583, [messages](mod@line) with their length before them.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use standin_core::clock::{Clock, SystemClock};
use standin_core::signature::{
    ID_HEADER, SIGNATURE_HEADER, Scheme, Secret, TIMESTAMP_HEADER, basic, http_message, sign,
    stripe,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use tls::{ClientTls, TlsArgs};

pub mod line;
mod stalled;
mod tls;

use stalled::Stalled;

/// Largest reply read.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections tried for one request that never left.
const SENDS_MAX: u32 = 3;

/// Where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    authority: String,
    secure: bool,
}

/// Why a text is not a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("not a URL: write {0}://HOST:PORT or {0}s://HOST:PORT")]
    Syntax(&'static str),
    /// Another protocol.
    #[error("only {0}:// and {0}s:// are spoken here, not {1}://")]
    Scheme(&'static str, String),
    /// It names a path.
    #[error("give the server only, without a path: {0}://HOST:PORT")]
    Path(&'static str),
}

/// A server as a URL names it.
struct Server {
    authority: String,
    secure: bool,
}

/// A bounded pool of persistent connections to one server.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    target: Target,
    tls: Option<ClientTls>,
    host: HeaderValue,
    permits: Semaphore,
    /// How long a free connection is waited for; `None`: as long as for the reply.
    patience: Option<Duration>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    drivers: TaskTracker,
}

/// One request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// `GET`, `POST`, …
    pub method: http::Method,
    /// Path and query.
    pub path: String,
    /// Body; empty for none.
    pub body: Bytes,
    /// Signature headers and others.
    pub headers: Vec<(&'static str, String)>,
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Value of `Idempotent-Replayed`.
    pub replayed: Option<String>,
    /// Value of `Retry-After`.
    pub retry_after: Option<String>,
    /// Value of `Stripe-Version`.
    pub stripe_version: Option<String>,
    /// Body.
    pub body: Bytes,
}

/// Why no reply came. The request may have been executed unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection; surely not executed.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// The server.
        target: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server does not speak HTTP, or the exchange broke.
    #[error("the exchange broke: {0}")]
    Http(#[from] hyper::Error),
    /// The reply is too long.
    #[error("the reply broke or is longer than {REPLY_BYTES_MAX} bytes: {0}")]
    Body(String),
    /// The path or a header cannot be sent.
    #[error("not sendable: {0}")]
    Request(#[from] http::Error),
    /// All connections were in use for as long as one is waited for; nothing was sent.
    #[error("all connections are in use")]
    AllInUse,
    /// The deadline passed.
    #[error("no reply in time")]
    Timeout,
}

/// How long an HTTP message signature is good.
const SIGNATURE_LIFE_SECS: i64 = 60;

/// Signs requests with one sender's secret.
#[derive(Clone, Debug)]
pub struct Signer {
    scheme: Scheme,
    secret: Secret,
    /// Of an HTTP message signature.
    key_id: String,
    /// Of an HTTP message signature: the host that is asked.
    authority: String,
}

// === impl Target ===

impl FromStr for Target {
    type Err = TargetError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let Server { authority, secure } = Server::read(&with_scheme, "http", [80, 443])?;
        Ok(Self { authority, secure })
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self {
            authority: address.to_string(),
            secure: false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl Target {
    /// Whether it is spoken to over TLS.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host's name or address, as its certificate has it.
    fn host(&self) -> &str {
        host_of(&self.authority)
    }
}

fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or("", |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

// === impl Server ===

impl Server {
    /// Reads a URL of `scheme`, or of that with an `s` for TLS, without a path; `ports` are those
    /// where none is given, plain and over TLS.
    fn read(text: &str, scheme: &'static str, ports: [u16; 2]) -> Result<Self, TargetError> {
        let syntax = || TargetError::Syntax(scheme);
        let uri: http::Uri = text.parse().map_err(|_| syntax())?;
        let found = uri.scheme_str().ok_or_else(syntax)?;
        let secure = match found.strip_prefix(scheme) {
            Some("") => false,
            Some("s") => true,
            Some(_) | None => return Err(TargetError::Scheme(scheme, found.to_owned())),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(TargetError::Path(scheme));
        }
        let authority = uri.authority().ok_or_else(syntax)?;
        if authority.as_str().contains('@') {
            return Err(syntax());
        }
        let [plain, over_tls] = ports;
        let authority = match authority.port() {
            Some(_) => authority.to_string(),
            None if secure => format!("{authority}:{over_tls}"),
            None => format!("{authority}:{plain}"),
        };
        Ok(Self { authority, secure })
    }
}

// === impl Call ===

impl Call {
    /// A request without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: http::Method::GET,
            path: path.into(),
            body: Bytes::new(),
            headers: Vec::new(),
        }
    }

    /// A POST of JSON.
    pub fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            method: http::Method::POST,
            path: path.into(),
            body: body.into(),
            headers: vec![("content-type", "application/json".to_owned())],
        }
    }

    /// Signs it now, under a fresh message id.
    pub fn signed(self, signer: &Signer) -> Self {
        let id = format!("msg_{}", Uuid::now_v7().simple());
        self.signed_as(signer, &id)
    }

    /// Signs it now, under a message id where the scheme has one.
    pub fn signed_as(mut self, signer: &Signer, id: &str) -> Self {
        let headers = signer.headers(&self, id);
        self.headers.extend(headers);
        self
    }
}

// === impl Signer ===

impl Signer {
    /// Signs as Standard Webhooks has it.
    pub fn new(secret: Secret) -> Self {
        Self {
            scheme: Scheme::StandardWebhooks,
            secret,
            key_id: String::new(),
            authority: String::new(),
        }
    }

    /// Signs by a scheme what is sent to `target`; `key_id` counts where messages name their key.
    pub fn of(scheme: Scheme, secret: Secret, key_id: String, target: &Target) -> Self {
        Self {
            scheme,
            secret,
            key_id,
            authority: target.authority.clone(),
        }
    }

    fn headers(&self, call: &Call, id: &str) -> Vec<(&'static str, String)> {
        let now = SystemClock.now().as_secs();
        match self.scheme {
            Scheme::StandardWebhooks => {
                let signature = sign(&self.secret, id, now, &call.body);
                vec![
                    (ID_HEADER, id.to_owned()),
                    (TIMESTAMP_HEADER, now.to_string()),
                    (SIGNATURE_HEADER, signature),
                ]
            }
            Scheme::Stripe => {
                let signature = stripe::sign(&self.secret, now, &call.body);
                vec![(stripe::SIGNATURE_HEADER, signature)]
            }
            Scheme::Basic => vec![(basic::HEADER, basic::credentials(&self.secret))],
            Scheme::HttpMessage => self.message_headers(call, id, now),
        }
    }

    fn message_headers(&self, call: &Call, id: &str, now: i64) -> Vec<(&'static str, String)> {
        let digest = http_message::digest(&call.body);
        let nonce = Uuid::new_v4().simple().to_string();
        let content_type = call
            .headers
            .iter()
            .find(|(name, _)| *name == "content-type");
        let message = http_message::Signed {
            method: call.method.as_str(),
            authority: &self.authority,
            target: &call.path,
            content_type: content_type.map_or("", |(_, value)| value),
            content_digest: &digest,
            idempotency_key: id,
            signature_input: "",
            signature: "",
            body: &call.body,
        };
        let terms = http_message::Terms {
            created: now,
            expires: now.saturating_add(SIGNATURE_LIFE_SECS),
            nonce: &nonce,
            keyid: &self.key_id,
        };
        let (input, signature) = http_message::sign(&self.secret, &message, &terms);
        vec![
            (http_message::DIGEST_HEADER, digest),
            (http_message::KEY_HEADER, id.to_owned()),
            (http_message::INPUT_HEADER, input),
            (http_message::SIGNATURE_HEADER, signature),
        ]
    }
}

// === impl Pool ===

impl Pool {
    /// A pool of at most `connections` connections, opened when needed.
    pub fn new(target: Target, connections: usize) -> Self {
        Self::made(target, connections, None, None)
    }

    /// The same, to a server at https://.
    pub fn over_tls(target: Target, connections: usize, tls: ClientTls) -> Self {
        Self::made(target, connections, Some(tls), None)
    }

    /// The same, whose calls wait for a free connection for so long at most: one that came by it at the end
    /// of its time would only be cut off, and with it the connection.
    pub fn impatient(
        target: Target,
        connections: usize,
        tls: ClientTls,
        patience: Duration,
    ) -> Self {
        Self::made(target, connections, Some(tls), Some(patience))
    }

    fn made(
        target: Target,
        connections: usize,
        tls: Option<ClientTls>,
        patience: Option<Duration>,
    ) -> Self {
        let host = HeaderValue::from_str(&target.authority)
            .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self(Arc::new(Shared {
            target,
            tls,
            host,
            permits: Semaphore::new(connections.max(1)),
            patience,
            idle: Mutex::default(),
            drivers: TaskTracker::new(),
        }))
    }

    /// Sends one request; waits for a free connection and the reply until `deadline`.
    pub async fn call(&self, call: Call, deadline: Instant) -> Result<Reply, CallError> {
        tokio::time::timeout_at(deadline, self.exchange(call))
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    /// Sends one request with at most `patience`.
    pub async fn ask(&self, call: Call, patience: Duration) -> Result<Reply, CallError> {
        tokio::time::timeout(patience, self.exchange(call))
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    async fn exchange(&self, call: Call) -> Result<Reply, CallError> {
        // The pool owns its semaphore and never closes it.
        let free = self.0.permits.acquire();
        let _permit = match self.0.patience {
            None => free.await.ok(),
            Some(patience) => tokio::time::timeout(patience, free)
                .await
                .map_err(|_elapsed| CallError::AllInUse)?
                .ok(),
        };
        let mut sends = 0_u32;
        loop {
            let mut connection = self.connection().await?;
            sends = sends.saturating_add(1);
            let body = Full::new(call.body.clone());
            match connection.send_request(self.request(&call, body)?).await {
                Ok(response) => {
                    let reply = read(response).await?;
                    self.put_back(connection);
                    return Ok(reply);
                }
                // Cancelled before it was written: the server never saw it.
                Err(error) if error.is_canceled() && sends < SENDS_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        loop {
            let idle = self.lock_idle().pop();
            let Some(mut connection) = idle else {
                return self.connect().await;
            };
            // An error here means that the server closed it while it was idle.
            if connection.ready().await.is_ok() {
                return Ok(connection);
            }
        }
    }

    /// Sends the head and half of the body on a connection of its own, and no more; waits for a reply
    /// all the same.
    pub async fn stall(&self, call: &Call, patience: Duration) -> Result<Reply, CallError> {
        let half = async {
            let mut connection = self.connect().await?;
            let body = Stalled::half_of(&call.body);
            read(connection.send_request(self.request(call, body)?).await?).await
        };
        tokio::time::timeout(patience, half)
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    /// Sends a request on a connection of its own, waits so long, and leaves without a look at what
    /// came.
    pub async fn abandon(&self, call: &Call, wait: Duration) -> Result<(), CallError> {
        let mut connection = self.connect().await?;
        let body = Full::new(call.body.clone());
        let sending = connection.send_request(self.request(call, body)?);
        let until = Instant::now().checked_add(wait);
        let replied = tokio::time::timeout(wait, sending).await;
        drop(replied);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
        Ok(())
    }

    async fn connect<B>(&self) -> Result<SendRequest<B>, CallError>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let failed = |source| CallError::Connect {
            target: self.0.target.to_string(),
            source,
        };
        let stream = TcpStream::connect(&self.0.target.authority)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.0.tls {
            None if self.0.target.secure => Err(failed(io::Error::other("no authority to trust"))),
            None => self.speak(stream).await,
            Some(tls) => {
                let secured = tls.connect(self.0.target.host(), stream).await;
                self.speak(secured.map_err(failed)?).await
            }
        }
    }

    async fn speak<S, B>(&self, stream: S) -> Result<SendRequest<B>, CallError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        self.0.drivers.spawn(async move {
            // What breaks a connection is told to whoever waits on it.
            drop(driver.await);
        });
        Ok(sender)
    }

    fn put_back(&self, connection: SendRequest<Full<Bytes>>) {
        if !connection.is_closed() {
            self.lock_idle().push(connection);
        }
    }

    fn request<B>(&self, call: &Call, body: B) -> Result<Request<B>, CallError> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(header::HOST, self.0.host.clone());
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        Ok(request.body(body)?)
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the idle connections and waits for every connection to end.
    pub async fn close(self) {
        self.lock_idle().clear();
        self.0.drivers.close();
        self.0.drivers.wait().await;
    }
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Result<Reply, CallError> {
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (replayed, retry_after) = (text("idempotent-replayed"), text("retry-after"));
    let stripe_version = text("stripe-version");
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), REPLY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| CallError::Body(error.to_string()))?
        .to_bytes();
    Ok(Reply {
        status,
        replayed,
        retry_after,
        stripe_version,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_the_certificate_names() {
        for (text, host) in [
            ("https://edge.example", "edge.example"),
            ("https://10.0.0.1:8443", "10.0.0.1"),
            ("https://[::1]:8443", "::1"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().host(), host);
        }
    }

    #[tokio::test]
    async fn whoever_is_impatient_does_not_wait_for_a_connection_until_its_deadline() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(silent.local_addr().unwrap());
        let pool = Pool::made(target, 1, None, Some(Duration::from_millis(20)));
        let first = pool.clone();
        let waiting = tokio::spawn(async move {
            let patience = Duration::from_secs(60);
            first.ask(Call::get("/"), patience).await.map(drop)
        });
        let (_held, _) = silent.accept().await.unwrap();
        let second = pool.ask(Call::get("/"), Duration::from_secs(60)).await;
        assert!(matches!(second, Err(CallError::AllInUse)), "{second:?}");
        waiting.abort();
    }

    #[test]
    fn a_target_is_a_server_without_a_path() {
        let check = |text: &str, expected: Result<&str, TargetError>| {
            let got = text.parse::<Target>().map(|target| target.to_string());
            assert_eq!(got, expected.map(str::to_owned), "{text}");
        };
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080"));
        check("127.0.0.1:8080/", Ok("http://127.0.0.1:8080"));
        check("http://edge.example", Ok("http://edge.example:80"));
        check("http://[::1]:8080", Ok("http://[::1]:8080"));
        check("http://a:1/v1", Err(TargetError::Path("http")));
        check("https://a:1", Ok("https://a:1"));
        check("https://edge.example", Ok("https://edge.example:443"));
        let other = |scheme: &str| Err(TargetError::Scheme("http", scheme.to_owned()));
        check("ftp://a:1", other("ftp"));
        check("iso8583://a:1", other("iso8583"));
        check("http://user:pass@a:1", Err(TargetError::Syntax("http")));
        check("", Err(TargetError::Syntax("http")));
    }
}
