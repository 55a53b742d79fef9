//! The same over TLS: who is let in, what HTTP/2 changes, and what is cut.

use http_body_util::Empty;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use standin_core::clock::{Clock, ManualClock, SystemClock, Timestamp};
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::tls::{Clients, ServerTlsFiles};
use super::*;
use crate::issue::{Authority, Issued, Subject, Whose};
use crate::watched::Reloaded;

pub(super) const HOST: &str = "edge.example.com";

/// Says who asks, and echoes.
struct Who;

impl Handler for Who {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        let name = request.peer_name.as_deref().unwrap_or("nobody");
        let said = format!("{name} {:?} {}", request.parts.version, request.body.len());
        Box::pin(async move { Response::new(Bytes::from(said)) })
    }
}

pub(super) struct World {
    authority: Authority,
    dir: TempDir,
    clock: Arc<ManualClock>,
    tls: Arc<ServerTls>,
    pub(super) address: SocketAddr,
    leave: CancellationToken,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Stopped>,
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn hosts() -> Vec<String> {
    vec![HOST.to_owned()]
}

fn bank(authority: &Authority, slug: &str, days: u32, at: Timestamp) -> Issued {
    let slug = slug.parse().unwrap();
    authority.issue(&Subject::Bank(&slug), days, at).unwrap()
}

impl World {
    pub(super) async fn new(clients: Clients, limits: ServerLimits) -> Self {
        Self::answered_by(Arc::new(Who), clients, limits).await
    }

    pub(super) async fn answered_by(
        handler: Arc<dyn Handler>,
        clients: Clients,
        limits: ServerLimits,
    ) -> Self {
        let authority = Authority::new(Whose::Banks, 30, now()).unwrap();
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(now()));
        std::fs::write(dir.path().join("ca.pem"), authority.certificate()).unwrap();
        Self::write_door(&authority, &dir, 20);
        std::fs::write(
            dir.path().join("crl.pem"),
            authority.revoke(&[], 5, now()).unwrap(),
        )
        .unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = ServerTlsFiles {
            certificate: at("door.pem"),
            key: at("door.key"),
            clients_ca: Some(at("ca.pem")),
            clients_crl: Some(at("crl.pem")),
            clients,
            tls12: false,
        };
        let opened = ServerTls::open(files, Arc::clone(&clock) as Arc<dyn Clock>).await;
        let tls = Arc::new(opened.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (leave, stop) = (CancellationToken::new(), CancellationToken::new());
        let ending = Ending {
            leave: leave.clone(),
            stop: stop.clone(),
        };
        let served = serve(listener, Some(Arc::clone(&tls)), handler, limits, ending);
        let serving = tokio::spawn(served);
        Self {
            authority,
            dir,
            clock,
            tls,
            address,
            leave,
            stop,
            serving,
        }
    }

    fn write_door(authority: &Authority, dir: &TempDir, days: u32) {
        let subject = hosts();
        let issued = authority
            .issue(&Subject::Listener(&subject), days, now())
            .unwrap();
        std::fs::write(dir.path().join("door.pem"), issued.certificate).unwrap();
        std::fs::write(dir.path().join("door.key"), issued.key).unwrap();
    }

    pub(super) fn client(&self, shown: Option<&Issued>, protocol: &[u8]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.authority.certificate().as_bytes());
        roots.add(ca.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        config
    }

    pub(super) async fn connect(
        &self,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(HOST).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// What the door says to a client; a refusal may come only after TLS 1.3 says it is done.
    pub(super) async fn ask(&self, shown: Option<&Issued>, protocol: &[u8]) -> Option<String> {
        let asking = async {
            let stream = self.connect(self.client(shown, protocol)).await.ok()?;
            said(stream, protocol == b"h2").await
        };
        timeout(LONG, asking).await.unwrap()
    }

    pub(super) async fn stopped(self) {
        self.stop.cancel();
        let stopped = timeout(LONG, self.serving).await.unwrap().unwrap();
        assert_eq!(stopped, Stopped::Clean);
    }
}

async fn said(stream: TlsStream<TcpStream>, http2: bool) -> Option<String> {
    let io = TokioIo::new(stream);
    let request = http::Request::post(format!("https://{HOST}/"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = if http2 {
        let (mut sender, driver) = client2::handshake(TokioExecutor::new(), io).await.ok()?;
        let driving = tokio::spawn(driver);
        let response = sender.send_request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        drop(sender);
        driving.abort();
        body
    } else {
        let (mut sender, driver) = client1::handshake(io).await.ok()?;
        let driving = tokio::spawn(driver);
        let response = sender.send_request(request).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        driving.abort();
        body
    };
    Some(String::from_utf8(response.to_vec()).unwrap())
}

#[tokio::test]
async fn both_protocols_know_who_asks() {
    let world = World::new(Clients::Any, limits()).await;
    let first = bank(&world.authority, "first", 5, now());
    for (shown, protocol, expected) in [
        (None, b"h2".as_slice(), "nobody HTTP/2.0 0"),
        (None, b"http/1.1", "nobody HTTP/1.1 0"),
        (Some(&first), b"h2", "standin://bank/first HTTP/2.0 0"),
        (Some(&first), b"http/1.1", "standin://bank/first HTTP/1.1 0"),
    ] {
        assert_eq!(world.ask(shown, protocol).await.as_deref(), Some(expected));
    }
    world.stopped().await;
}

#[tokio::test]
async fn who_shows_no_good_certificate_is_not_let_in() {
    let world = World::new(Clients::Certified, limits()).await;
    let good = bank(&world.authority, "first", 5, now());
    let stranger = Authority::new(Whose::Banks, 30, now()).unwrap();
    let foreign = bank(&stranger, "first", 5, now());
    let day = Duration::from_secs(24 * 60 * 60);
    let before = Timestamp::from_millis(now().as_millis() - 3 * 86_400_000);
    let ended = bank(&world.authority, "first", 1, before);
    let early = bank(&world.authority, "first", 5, now().plus(day));
    let of_server = world
        .authority
        .issue(&Subject::Listener(&hosts()), 5, now())
        .unwrap();
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        assert!(world.ask(Some(&good), protocol).await.is_some());
        assert_eq!(world.ask(None, protocol).await, None);
        for bad in [&foreign, &ended, &early, &of_server] {
            assert_eq!(world.ask(Some(bad), protocol).await, None);
        }
        // Neither protocol, and no protocol that we speak.
        assert_eq!(world.ask(Some(&good), b"h3").await, None);
    }
    world.stopped().await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_the_next_connection_on() {
    let world = World::new(Clients::Certified, limits()).await;
    let (first, second) = (
        bank(&world.authority, "first", 5, now()),
        bank(&world.authority, "second", 5, now()),
    );
    // It would be resumed, too.
    let config = world.client(Some(&first), b"http/1.1");
    let ask = async || {
        let stream = world.connect(config.clone()).await.ok()?;
        said(stream, false).await
    };
    assert!(timeout(LONG, ask()).await.unwrap().is_some());
    let list = world
        .authority
        .revoke(&[&first.certificate], 5, now())
        .unwrap();
    let file = world.dir.path().join("crl.pem");
    std::fs::write(&file, "nonsense").unwrap();
    assert!(world.tls.reload().await.is_err());
    assert!(world.tls.problem().unwrap().contains("no revocation list"));
    assert!(timeout(LONG, ask()).await.unwrap().is_some());
    std::fs::write(&file, list).unwrap();
    assert_eq!(world.tls.reload().await.unwrap(), Reloaded::Changed);
    assert_eq!(timeout(LONG, ask()).await.unwrap(), None);
    assert!(world.ask(Some(&second), b"h2").await.is_some());
    // On a list that has ended nobody could be let in: it is not taken.
    let before = Timestamp::from_millis(now().as_millis() - 3 * 86_400_000);
    std::fs::write(&file, world.authority.revoke(&[], 1, before).unwrap()).unwrap();
    assert!(world.tls.reload().await.is_err());
    assert!(
        world
            .tls
            .problem()
            .unwrap()
            .contains("a revocation list that has ended")
    );
    assert!(world.ask(Some(&second), b"h2").await.is_some());
    // One that ends soon is told of.
    std::fs::write(&file, world.authority.revoke(&[], 1, now()).unwrap()).unwrap();
    world.clock.advance(Duration::from_secs(19 * 60 * 60));
    assert_eq!(world.tls.reload().await.unwrap(), Reloaded::Changed);
    assert!(
        world
            .tls
            .problem()
            .unwrap()
            .contains("a revocation list ends at")
    );
    world.stopped().await;
}

#[tokio::test]
async fn a_session_is_not_resumed_beyond_its_certificate() {
    let world = World::new(Clients::Certified, limits()).await;
    let first = bank(&world.authority, "first", 2, now());
    let config = world.client(Some(&first), b"http/1.1");
    let ask = async || {
        let stream = world.connect(config.clone()).await.ok()?;
        said(stream, false).await
    };
    for _ in 0..3 {
        let said = timeout(LONG, ask()).await.unwrap();
        assert_eq!(said.as_deref(), Some("standin://bank/first HTTP/1.1 0"));
    }
    world.clock.advance(Duration::from_secs(3 * 24 * 60 * 60));
    assert_eq!(timeout(LONG, ask()).await.unwrap(), None);
    world.stopped().await;
}

#[tokio::test]
async fn a_renewed_door_certificate_is_shown_and_open_connections_stay() {
    let world = World::new(Clients::Any, limits()).await;
    let stream = world.connect(world.client(None, b"h2")).await.unwrap();
    let (mut sender, driver) = client2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driving = tokio::spawn(driver);
    let before = world.tls.not_after();
    World::write_door(&world.authority, &world.dir, 25);
    assert_eq!(world.tls.reload().await.unwrap(), Reloaded::Changed);
    assert!(world.tls.not_after() > before);
    assert!(world.ask(None, b"h2").await.is_some());
    let request = http::Request::get(format!("https://{HOST}/"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answered = timeout(LONG, sender.send_request(request)).await.unwrap();
    assert_eq!(answered.unwrap().status(), 200);
    // A certificate before its time is not taken.
    let tomorrow = now().plus(Duration::from_secs(24 * 60 * 60));
    let early = world
        .authority
        .issue(&Subject::Listener(&hosts()), 5, tomorrow)
        .unwrap();
    std::fs::write(world.dir.path().join("door.pem"), &early.certificate).unwrap();
    std::fs::write(world.dir.path().join("door.key"), &early.key).unwrap();
    assert!(
        world
            .tls
            .reload()
            .await
            .unwrap_err()
            .to_string()
            .contains("good from")
    );
    World::write_door(&world.authority, &world.dir, 25);
    // A key of another certificate is not taken.
    let other = world
        .authority
        .issue(&Subject::Listener(&hosts()), 25, now())
        .unwrap();
    std::fs::write(world.dir.path().join("door.key"), other.key).unwrap();
    assert!(world.tls.reload().await.is_err());
    assert!(world.ask(None, b"h2").await.is_some());
    drop(sender);
    driving.abort();
    world.stopped().await;
}

#[tokio::test]
async fn whoever_is_silent_is_cut_before_and_after_the_handshake() {
    let short = ServerLimits {
        header_timeout: SHORT,
        ..limits()
    };
    let world = World::new(Clients::Any, short).await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut one_byte = TcpStream::connect(world.address).await.unwrap();
    one_byte.write_all(&[0x16]).await.unwrap();
    for client in [&mut silent, &mut one_byte] {
        let mut rest = Vec::new();
        let read = timeout(LONG, client.read_to_end(&mut rest)).await;
        drop(read.expect("the connection is cut"));
    }
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let mut stream = world.connect(world.client(None, protocol)).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut rest)).await;
        drop(read.expect("the connection is cut"));
    }
    world.stopped().await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_cut_and_a_body_that_stalls_is_answered() {
    let short = ServerLimits {
        idle_timeout: SHORT,
        write_timeout: SHORT,
        body_timeout: SHORT,
        ..limits()
    };
    let world = World::new(Clients::Any, short).await;
    let stream = world.connect(world.client(None, b"h2")).await.unwrap();
    let (mut sender, driver) =
        client2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driving = tokio::spawn(driver);
    let request = http::Request::post(format!("https://{HOST}/"));
    let request = request
        .body(Full::new(Bytes::from(vec![b'x'; 65])))
        .unwrap();
    let answered = timeout(LONG, sender.send_request(request)).await.unwrap();
    assert_eq!(answered.unwrap().status(), 413);
    timeout(LONG, driving).await.unwrap().unwrap().ok();
    let stream = world.connect(world.client(None, b"h2")).await.unwrap();
    let (mut sender, driver) = client2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driving = tokio::spawn(driver);
    // A body that is announced and never comes.
    let request = http::Request::post(format!("https://{HOST}/"))
        .body(Stalled)
        .unwrap();
    let answered = timeout(LONG, sender.send_request(request)).await.unwrap();
    assert_eq!(answered.unwrap().status(), 408);
    drop(sender);
    timeout(LONG, driving).await.unwrap().unwrap().ok();
    world.stopped().await;
}

struct Stalled;

impl Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}

#[tokio::test]
async fn silent_clients_do_not_hold_the_turns_to_shake_hands() {
    let few = ServerLimits {
        handshakes: 1,
        connections: 64,
        ..limits()
    };
    let world = World::new(Clients::Any, few).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    assert!(world.ask(None, b"h2").await.is_some());
    assert!(world.ask(None, b"http/1.1").await.is_some());
    drop(silent);
    world.stopped().await;
}

#[tokio::test]
async fn an_old_connection_ends_and_its_client_may_come_again() {
    let short = ServerLimits {
        age_max: SHORT,
        ..limits()
    };
    let world = World::new(Clients::Any, short).await;
    for protocol in [b"h2".as_slice(), b"http/1.1"] {
        let stream = world.connect(world.client(None, protocol)).await.unwrap();
        let io = TokioIo::new(stream);
        if protocol == b"h2" {
            let shaken = client2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await;
            let (_sender, driver) = shaken.unwrap();
            timeout(LONG, driver).await.expect("it ends").ok();
        } else {
            let (_sender, driver) = client1::handshake::<_, Empty<Bytes>>(io).await.unwrap();
            timeout(LONG, driver).await.expect("it ends").ok();
        }
        assert!(world.ask(None, protocol).await.is_some());
    }
    world.stopped().await;
}

#[tokio::test]
async fn clients_that_are_to_leave_are_told_so_over_http2() {
    let world = World::new(Clients::Any, limits()).await;
    let connect = || async {
        let stream = world.connect(world.client(None, b"h2")).await.unwrap();
        let shaken = client2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, driver) = shaken.unwrap();
        (sender, tokio::spawn(driver))
    };
    let request = || {
        let request = http::Request::post(format!("https://{HOST}/"));
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let (mut kept, kept_ends) = connect().await;
    assert!(kept.send_request(request()).await.is_ok());
    let (mut silent, silent_ends) = connect().await;
    world.leave.cancel();
    // GOAWAY, and the end: nothing is under way on it.
    timeout(LONG, kept_ends)
        .await
        .expect("it ends")
        .unwrap()
        .ok();
    // Who has not asked yet is answered before it is sent away; so is who comes now.
    let (mut fresh, fresh_ends) = connect().await;
    for (sender, ends) in [(&mut silent, silent_ends), (&mut fresh, fresh_ends)] {
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!(response.status(), 200);
        timeout(LONG, ends).await.expect("it ends").unwrap().ok();
    }
    world.stopped().await;
}

#[tokio::test]
async fn strangers_who_stop_in_their_handshakes_do_not_hold_up_whom_we_know() {
    let few = ServerLimits {
        handshakes: 1,
        ..limits()
    };
    let world = World::new(Clients::Any, few).await;
    let issued = bank(&world.authority, "first", 5, now());
    assert!(world.ask(Some(&issued), b"h2").await.is_some());
    // The first word of a handshake, and no second one.
    let name = ServerName::try_from(HOST).unwrap();
    let config = Arc::new(world.client(None, b"h2"));
    let mut begun = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    begun.write_tls(&mut hello).unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut stranger = socket.connect(world.address).await.unwrap();
    stranger.write_all(&hello).await.unwrap();
    let mut some = [0; 16];
    assert!(
        timeout(LONG, stranger.read(&mut some))
            .await
            .unwrap()
            .unwrap()
            > 0
    );
    assert!(world.ask(Some(&issued), b"h2").await.is_some());
    assert!(
        world.ask(None, b"http/1.1").await.is_some(),
        "nor anybody else there"
    );
    drop(stranger);
    world.stopped().await;
}
