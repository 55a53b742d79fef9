//! One keeper of a group in a process of its own, told what to do by lines on its standard input.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use standin_core::BoxFuture;
use standin_core::clock::SystemClock;
use standin_edge::alarm::Alarms;
use standin_edge::links::{Handler, LinkLimits, Links, LinksConfig, TlsFiles};
use standin_edge::metrics::Metrics;
use standin_wal::{
    Config, Group, GroupConfig, LoadError, Member, NodeId, Replicable, SystemTimeSource,
};
use tokio::io::{AsyncBufReadExt, BufReader};
use uuid::Uuid;

use crate::load::{Writer, in_tasks};
use crate::logs::standin::Count;
use crate::recorder::{Found, Recorder, say};

const DEADLINE: Duration = Duration::from_secs(30);
/// Which group it is: any would do, but the same at each keeper.
const GROUP: Uuid = Uuid::from_u128(0x5354_414e_4449_4e00_0000_0000_0000_0001);
/// The region that certificates name.
pub const REGION: &str = "bench";

/// What a keeper is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Keeper {
    /// Its number.
    #[arg(long)]
    pub node: u64,
    /// Where keepers 1, 2, 3 listen, by commas.
    #[arg(long, value_delimiter = ',')]
    pub members: Vec<String>,
    /// An empty folder for its log.
    #[arg(long)]
    pub dir: PathBuf,
    /// Batches under way at once.
    #[arg(long, default_value_t = 2)]
    pub batches: usize,
    /// Folder with `ca.pem`, and `keeper-N.pem` and `keeper-N.key` of each: links with mutual TLS.
    #[arg(long)]
    pub tls: Option<PathBuf>,
}

/// Answers the other keepers.
struct Answers(Arc<Group<Count>>);

impl Handler for Answers {
    fn handle(&self, _from: NodeId, request: Bytes) -> BoxFuture<'_, Bytes> {
        Box::pin(self.0.handle(request))
    }

    fn may_call(&self, node: NodeId) -> bool {
        (1..=3).contains(&node.0)
    }
}

impl Replicable for Count {
    fn save(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let bytes = bytes.try_into();
        self.0 = u64::from_le_bytes(bytes.map_err(|_| LoadError("not 8 bytes".to_owned()))?);
        Ok(())
    }

    fn outcome_to_bytes(outcome: &u64) -> Vec<u8> {
        outcome.to_le_bytes().to_vec()
    }

    fn outcome_from_bytes(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

struct Proposer(Arc<Group<Count>>);

impl Writer for Proposer {
    async fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let proposal = Bytes::copy_from_slice(body);
        self.0.propose(proposal, deadline).await?;
        Ok(())
    }
}

// === impl Keeper ===

impl Keeper {
    /// Opens its part of the group and does what it is told, until nobody tells it anything more.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut log = Config::new(&self.dir, NodeId(self.node), "bench");
        log.budget_bytes = 16 << 30;
        let mut config = GroupConfig::new(log, GROUP);
        config.batches_max = self.batches;
        // A busy machine must not look like a dead leader here: elections are measured elsewhere.
        config.heartbeat = Duration::from_millis(100);
        config.election = [Duration::from_millis(3_000), Duration::from_millis(4_000)];
        let links = self.links().await?;
        let time = Box::new(SystemTimeSource::new());
        let group = Group::open(config, time, Count(0), Arc::clone(&links) as _).await?;
        let group = Arc::new(group);
        links.serve(Arc::new(Answers(Arc::clone(&group))))?;
        // With the log that it brings: a member is known by it.
        say(&format!("ready {}", group.log()));
        let mut told = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = told.next_line().await? {
            self.obey(&group, &line).await?;
        }
        links.stop().await;
        group.stop().await;
        Ok(())
    }

    /// The product's own links, with or without TLS.
    async fn links(&self) -> anyhow::Result<Arc<Links>> {
        let own = usize::try_from(self.node)?.checked_sub(1);
        let address = own
            .and_then(|at| self.members.get(at))
            .context("no address")?;
        let node = self.node;
        let config = LinksConfig {
            region: REGION.to_owned(),
            group: "bench".to_owned(),
            incarnation: GROUP,
            node: NodeId(node),
            listen: Some(address.parse()?),
            tls: self.tls.as_ref().map(|folder| TlsFiles {
                ca: folder.join("ca.pem"),
                certificate: folder.join(format!("keeper-{node}.pem")),
                key: folder.join(format!("keeper-{node}.key")),
            }),
            limits: LinkLimits::default(),
        };
        let clock = Arc::new(SystemClock);
        let alarms = Alarms::new(Arc::new(Metrics::new()?), Arc::clone(&clock) as _);
        Ok(Links::start(config, clock, Arc::new(alarms)).await?)
    }

    async fn obey(&self, group: &Arc<Group<Count>>, line: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["found", logs] => {
                let mut members = BTreeMap::new();
                for (node, (address, log)) in (1..).zip(self.members.iter().zip(logs.split(','))) {
                    let (address, log) = (address.clone(), log.parse()?);
                    members.insert(NodeId(node), Member { address, log });
                }
                group.found(members).await?;
                say("founded");
            }
            ["status"] => say(&serde_json::to_string(&group.status())?),
            ["load", writers, warm, counted] => {
                let window = [warm, counted].map(|text| text.parse().map(Duration::from_millis));
                let [warm, counted] = window;
                let found = load(group, writers.parse()?, warm?, counted?).await?;
                say(&serde_json::to_string(&found)?);
            }
            _ => bail!("a keeper does not know {line:?}"),
        }
        Ok(())
    }
}

async fn load(
    group: &Arc<Group<Count>>,
    writers: usize,
    warm: Duration,
    counted: Duration,
) -> anyhow::Result<Found> {
    let before = group.status();
    let recorder = Arc::new(Recorder::new(warm, counted));
    let writers = (0..writers).map(|_| Proposer(Arc::clone(group))).collect();
    in_tasks(&recorder, writers).await?;
    let after = group.status();
    let entries = after.applied_index.saturating_sub(before.applied_index);
    let syncs = after.counters.sync_latency.count - before.counters.sync_latency.count;
    let waited = after.counters.sync_latency.sum_us - before.counters.sync_latency.sum_us;
    let mut found = recorder.found(BTreeMap::new());
    let seconds = (warm + counted).as_secs_f64();
    let all = found.per_second * seconds;
    found.details = BTreeMap::from([
        ("appends an entry".to_owned(), all / entries.max(1) as f64),
        ("entries a second".to_owned(), entries as f64 / seconds),
        (
            "writes of its disk a second".to_owned(),
            syncs as f64 / seconds,
        ),
        (
            "ms a write and sync".to_owned(),
            waited as f64 / syncs.max(1) as f64 / 1_000.0,
        ),
        (
            "changes of term".to_owned(),
            (after.term - before.term) as f64,
        ),
    ]);
    Ok(found)
}
