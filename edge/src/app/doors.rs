//! What is open to banks and to operators, and the certificates they see there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use standin_core::clock::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Desk, StartError};
use crate::admin::Admin;
use crate::alarm::{Alarm, Alarms};
use crate::config::Config;
use crate::door::Door;
use crate::server::frames::Frames;
use crate::server::tls::{ServerTls, ServerTlsFiles};
use crate::server::{self, Ending, Handler, ServerLimits};
use crate::tls::TlsError;
use crate::watched::LOOK_EVERY;

/// Operators' connections.
const ADMIN_CONNECTIONS: usize = 64;
/// Connections that wait to be accepted. A flood fills a short queue, and whoever comes then waits for a
/// second until it knocks again; the accept loop is through with this many in a tenth of one.
const BACKLOG: u32 = 4_096;

/// What is open.
pub(super) struct Doors {
    pub(super) address: SocketAddr,
    pub(super) admin_address: SocketAddr,
    pub(super) iso8583_address: Option<SocketAddr>,
    pub(super) servers: Vec<JoinHandle<server::Stopped>>,
}

/// The certificates of both listeners; `None`: plain.
#[derive(Clone)]
pub(super) struct Certificates {
    banks: Option<Arc<ServerTls>>,
    operators: Option<Arc<ServerTls>>,
    alarms: Arc<Alarms>,
}

/// Opens both listeners.
pub(super) async fn open(
    config: &Config,
    desk: &Desk,
    door: Door,
    admin: Admin,
    stop_accepting: &CancellationToken,
) -> Result<Doors, StartError> {
    let certificates = desk.shared.certificates.clone();
    let (address, banks) = listen_on(config.listen)?;
    let (admin_address, operators) = listen_on(config.admin_listen)?;
    let (from_one, kept) = match config.admin_tls {
        // Strangers may connect, too.
        Some(_) => (ADMIN_CONNECTIONS.div_ceil(4), ADMIN_CONNECTIONS.div_ceil(4)),
        None => (ADMIN_CONNECTIONS, 0),
    };
    let admin_limits = ServerLimits {
        connections: ADMIN_CONNECTIONS,
        connections_kept: kept,
        connections_per_address: from_one,
        ..config.server
    };
    let ending_of_banks = || Ending {
        leave: desk.leave().clone(),
        stop: stop_accepting.clone(),
    };
    // Operators see it to the end.
    let ending_of_operators = Ending::from(stop_accepting.clone());
    let door = Arc::new(door);
    let handler: Arc<dyn Handler> = Arc::<Door>::clone(&door);
    let mut servers = Vec::new();
    let mut iso8583_address = None;
    if let Some(listen) = config.iso8583_listen {
        let (address, listener) = listen_on(listen)?;
        let frames: Arc<dyn Frames> = Arc::<Door>::clone(&door);
        let both = (Arc::clone(&handler), frames);
        let certificates = certificates.banks.clone();
        let to_lines = server::serve_frames(
            listener,
            certificates,
            both,
            config.server,
            ending_of_banks(),
        );
        servers.push(tokio::spawn(to_lines));
        iso8583_address = Some(address);
    }
    let to_banks = server::serve(
        banks,
        certificates.banks,
        handler,
        config.server,
        ending_of_banks(),
    );
    let to_operators = server::serve(
        operators,
        certificates.operators,
        Arc::new(admin),
        admin_limits,
        ending_of_operators,
    );
    servers.push(tokio::spawn(to_banks));
    servers.push(tokio::spawn(to_operators));
    tracing::info!(%address, admin = %admin_address, "edge is open");
    Ok(Doors {
        address,
        admin_address,
        iso8583_address,
        servers,
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // An edge that starts again takes the address over from connections that have ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn listen_on(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = bind(address).map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

// === impl Certificates ===

impl Certificates {
    /// Takes both listeners' files into use.
    ///
    /// # Errors
    /// When they do not serve.
    pub(super) async fn open(
        config: &Config,
        clock: &Arc<dyn Clock>,
        alarms: &Arc<Alarms>,
    ) -> Result<Self, TlsError> {
        let certificates = Self {
            banks: open_tls(config.tls.clone(), clock).await?,
            operators: open_tls(config.admin_tls.clone(), clock).await?,
            alarms: Arc::clone(alarms),
        };
        certificates.alarm();
        Ok(certificates)
    }

    /// Looks at the files every so often, until `stop`.
    pub(super) async fn watch(self, stop: CancellationToken) {
        let pause = || stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        while pause().await.is_some() {
            for tls in self.all() {
                // The alarm says what is the matter.
                drop(tls.look().await);
            }
            self.alarm();
        }
    }

    /// For the status page.
    pub(super) fn status(&self) -> Value {
        let show = |tls: &Option<Arc<ServerTls>>| {
            tls.as_ref().map(|tls| {
                json!({
                    "not_after": tls.not_after().to_string(),
                    "reloads": tls.reloads(),
                    "problem": tls.problem(),
                })
            })
        };
        json!({ "banks": show(&self.banks), "operators": show(&self.operators) })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ServerTls>> {
        self.banks.iter().chain(&self.operators)
    }

    fn alarm(&self) {
        let problems = self.all().filter_map(|tls| tls.problem());
        self.alarms.set_for(Alarm::DoorCertificates, problems);
    }
}

async fn open_tls(
    files: Option<ServerTlsFiles>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Arc<ServerTls>>, TlsError> {
    match files {
        None => Ok(None),
        Some(files) => {
            let opened = ServerTls::open(files, Arc::clone(clock)).await?;
            Ok(Some(Arc::new(opened)))
        }
    }
}
