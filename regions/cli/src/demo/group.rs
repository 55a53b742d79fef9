//! The region's keepers: three edges, each in a process of its own, and who leads them.

mod keeper;
mod positions;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_core::id::ShopperId;
use standin_core::trip::Position;
use standin_drill::process::free_port;
use standin_reconcile::log::source::{DirectoryLog, contents};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::elections::Elections;
use super::fault::State;
use super::settings::Settings;
use super::words::Order;
use crate::client::{Call, Pool, Target};
use crate::killed::Killed;
use keeper::{Hear, Keeper};

pub(super) use positions::Positions;

/// Keepers of the region's log.
pub(super) const KEEPERS: u64 = 3;
/// How long a leader that is to be killed may take to be there.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
/// How long a keeper may take to say how it is.
const STATUS_WITHIN: Duration = Duration::from_secs(2);

/// Where an edge is found, whenever it runs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: u64,
    /// For banks.
    pub(super) address: SocketAddr,
    /// For operators.
    pub(super) admin: SocketAddr,
    /// For the other edges.
    pub(super) link: SocketAddr,
    /// Where its log lies.
    pub(super) wal: PathBuf,
}

/// The keepers.
pub(super) struct Group {
    program: PathBuf,
    seats: Vec<Seat>,
    /// How the primary is that each edge has embedded; `None`: they share a real one.
    primary: Mutex<Option<State>>,
    positions: Mutex<BTreeMap<ShopperId, Position>>,
    elections: Arc<Mutex<Elections>>,
}

/// One keeper, whether it runs or not.
struct Seat {
    place: Place,
    /// Its configuration, TOML.
    config: String,
    keeper: tokio::sync::Mutex<Option<Keeper>>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    admin: Pool,
    /// Whether banks may ask it. One that was killed may be asked; one that comes back not yet.
    serves: AtomicBool,
}

// === impl Place ===

impl Place {
    /// On free ports of this machine, with its log in a folder below `folder`.
    pub(super) fn free(node: u64, folder: &Path) -> anyhow::Result<Self> {
        let local = || anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        Ok(Self {
            node,
            address: local()?,
            admin: local()?,
            link: local()?,
            wal: folder.join(format!("wal-{node}")),
        })
    }
}

// === impl Group ===

impl Group {
    /// Starts the keepers, and waits until each is open.
    pub(super) async fn start(
        places: Vec<Place>,
        settings: &Settings,
        primary: Option<State>,
    ) -> anyhow::Result<Arc<Self>> {
        let program = std::env::current_exe().context("this program's own file")?;
        let seats = places.iter().map(|place| {
            Ok(Seat {
                config: settings.keeper(place, &places)?,
                keeper: tokio::sync::Mutex::default(),
                orders: Mutex::default(),
                admin: Pool::new(Target::from(place.admin), 1),
                serves: AtomicBool::new(false),
                place: place.clone(),
            })
        });
        let seats = seats.collect::<anyhow::Result<Vec<Seat>>>()?;
        let elections = Elections::new(seats.len(), Instant::now());
        let group = Arc::new(Self {
            program,
            seats,
            primary: Mutex::new(primary),
            positions: Mutex::default(),
            elections: Arc::new(Mutex::new(elections)),
        });
        try_join_all(group.seats.iter().map(|seat| group.seat(seat))).await?;
        Ok(group)
    }

    /// Where every keeper is.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.seats.iter().map(|seat| &seat.place)
    }

    /// Whether banks may ask this keeper.
    pub(super) fn serves(&self, node: u64) -> bool {
        let seat = self.seats.iter().find(|seat| seat.place.node == node);
        seat.is_some_and(|seat| seat.serves.load(Ordering::Relaxed))
    }

    /// Elections count from now on.
    pub(super) fn begin(&self) {
        locked(&self.elections).begin(Instant::now());
    }

    /// What was seen of elections.
    pub(super) fn elections(&self) -> Elections {
        locked(&self.elections).clone()
    }

    /// The embedded primaries are so from now on.
    pub(super) fn set_primary(&self, state: State) {
        *locked(&self.primary) = Some(state);
        self.order_all(&Order::Primary(state));
    }

    /// A shopper moved.
    pub(super) fn moved(&self, shopper: ShopperId, position: Position) {
        locked(&self.positions).insert(shopper, position);
        self.order_all(&Order::Moved { shopper, position });
    }

    /// Kills whoever leads the log (SIGKILL), and reads what its disk holds.
    pub(super) async fn kill_leader(&self) -> anyhow::Result<Killed> {
        let leader = self.await_leader().await?;
        let seat = self.seats.iter().find(|seat| seat.place.node == leader);
        let seat = seat.context("an edge leads that is no keeper")?;
        *locked(&seat.orders) = None;
        let keeper = seat.keeper.lock().await.take();
        let keeper = keeper.context("the leader does not run")?;
        keeper.mute();
        let at = SystemClock.now();
        locked(&self.elections).died(leader, Instant::now());
        keeper.kill().await?;
        let log = DirectoryLog::new(&seat.place.wal);
        let log = contents(&log)
            .await
            .context("reading the killed leader's log")?;
        Ok(Killed {
            node: leader,
            at,
            log,
        })
    }

    /// Starts a keeper again that was killed, and lets banks ask it once it is as before.
    pub(super) async fn bring_back(&self, node: u64) -> anyhow::Result<()> {
        let seat = self.seats.iter().find(|seat| seat.place.node == node);
        self.seat(seat.context("no such keeper")?).await
    }

    /// The status page of every keeper that runs.
    pub(super) async fn statuses(&self) -> anyhow::Result<Vec<Value>> {
        let asked = self.seats.iter().map(|seat| async {
            let reply = seat.admin.ask(Call::get("/statusz"), STATUS_WITHIN).await?;
            anyhow::ensure!(reply.status == 200, "/statusz replied {}", reply.status);
            Ok(serde_json::from_slice(&reply.body)?)
        });
        try_join_all(asked).await
    }

    /// What is final in each keeper's ledger: how much, and a digest.
    pub(super) async fn ledgers(&self) -> anyhow::Result<Vec<(u64, u64)>> {
        let asked = self.seats.iter().map(|seat| async {
            let keeper = seat.keeper.lock().await;
            let keeper = keeper.as_ref().context("a keeper does not run")?;
            keeper.ledger().await
        });
        try_join_all(asked).await
    }

    /// Stops every keeper in order.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let stopping = self.seats.iter().map(|seat| async {
            *locked(&seat.orders) = None;
            match seat.keeper.lock().await.take() {
                Some(keeper) => keeper.stop().await,
                None => Ok(()),
            }
        });
        // Each is waited for, whatever becomes of the others.
        let stopped = futures_util::future::join_all(stopping).await;
        stopped.into_iter().collect()
    }

    /// Starts a keeper; banks may ask it once it knows what the others know.
    async fn seat(&self, seat: &Seat) -> anyhow::Result<()> {
        seat.serves.store(false, Ordering::Relaxed);
        let primary = *locked(&self.primary);
        let begin = Order::Begin {
            config: seat.config.clone(),
            primary,
        };
        let mut held = seat.keeper.lock().await;
        let keeper = Keeper::spawn(&self.program, begin, self.hear(seat.place.node))?;
        let keeper = held.insert(keeper);
        let orders = keeper.orders();
        *locked(&seat.orders) = Some(orders.clone());
        // What changed since it was told to begin; twice does no harm.
        let primary = *locked(&self.primary);
        if let Some(state) = primary {
            orders.send(Order::Primary(state)).await?;
        }
        keeper.open().await?;
        let positions = locked(&self.positions).clone();
        for (shopper, position) in positions {
            orders.send(Order::Moved { shopper, position }).await?;
        }
        keeper.settled().await?;
        seat.serves.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Passes on what one life of a keeper says of leaders.
    fn hear(&self, node: u64) -> Hear {
        let elections = Arc::clone(&self.elections);
        Arc::new(move |said| {
            let now = Instant::now();
            match said {
                Some(leader) => locked(&elections).told(node, leader, now),
                None => locked(&elections).died(node, now),
            }
        })
    }

    async fn await_leader(&self) -> anyhow::Result<u64> {
        let until = Instant::now().checked_add(LEADER_WITHIN);
        loop {
            if let Some(leader) = locked(&self.elections).leader() {
                return Ok(leader);
            }
            anyhow::ensure!(
                until.is_some_and(|until| Instant::now() < until),
                "nobody leads the log"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn order_all(&self, order: &Order) {
        for seat in &self.seats {
            if let Some(orders) = locked(&seat.orders).as_ref()
                && orders.try_send(order.clone()).is_err()
            {
                tracing::warn!(node = seat.place.node, "a keeper does not take its orders");
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
