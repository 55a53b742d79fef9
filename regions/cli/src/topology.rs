//! `standin topology`: checks what is where, draws it, and says what follows for one edge.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use standin_topology::derived::{bird_config, edge_config};
use standin_topology::drawing::draw;
use standin_topology::read::{FILE_BYTES_MAX, FILES_MAX, Read, Weight};
use standin_topology::region::Topology;

use crate::out::{say, say_json};

/// The topology cannot be used.
const EXIT_WRONG: u8 = 2;

/// What is where: regions, edges, keepers, Redis, Postgres, in one TOML file a region.
///
/// The files are one source: edges' configurations, BIRD's and whom an announcer asks follow from them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin topology check regions/examples/three
  standin topology show regions/examples/three
  standin topology edge east-1 --dir regions/examples/three > edge.toml
  standin topology bird east-1 --dir regions/examples/three > /etc/bird/bird.conf")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Show(ShowArgs),
    Edge(PartArgs),
    Bird(PartArgs),
}

/// Looks at every region's file and at all of them together; says everything that is wrong at once.
///
/// Errors make it unusable: keepers that fail as one, an address taken twice, two primaries. Warnings
/// will hurt one day: a bank with one region, a ledger without a standby.
///
/// Exit code: 0 it can be used, 2 it cannot, 1 the files cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin topology check
  standin topology check regions/examples/three --json")]
struct CheckArgs {
    /// Where the regions' files are.
    #[arg(value_name = "DIR", default_value = "regions")]
    dir: PathBuf,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Draws the regions: edges, keepers and what fails as one, data plane, who takes over from whom.
///
/// Exit code: 0 shown, 2 it cannot be used, 1 the files cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin topology show regions/examples/three")]
struct ShowArgs {
    /// Where the regions' files are.
    #[arg(value_name = "DIR", default_value = "regions")]
    dir: PathBuf,
    /// Everything as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints what follows for one edge.
///
/// `edge`: the parts of its standin-edge.toml that the topology knows: where it listens, its keepers,
/// ledger and trip cache. Secrets are not the topology's: the deployment key and the banks are yours to
/// add. `bird`: the configuration of the BIRD on its machine.
///
/// Exit code: 0 printed, 2 the topology cannot be used, 1 no such edge or files.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin topology edge east-1 --dir regions/examples/three
  standin topology bird east-1 --dir regions/examples/three")]
struct PartArgs {
    /// The edge's name.
    name: String,
    /// Where the regions' files are.
    #[arg(long, value_name = "DIR", default_value = "regions")]
    dir: PathBuf,
}

// === impl Args ===

impl Args {
    /// Runs it; gives the exit code.
    ///
    /// # Errors
    /// When files cannot be read, or there is no such edge.
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Check(args) => args.run(),
            Command::Show(args) => {
                let json = args.json;
                with(&args.dir, |topology| {
                    if json {
                        return say_json(topology);
                    }
                    say(draw(topology).trim_end());
                    Ok(())
                })
            }
            Command::Edge(args) => with(&args.dir, |topology| {
                say(edge_config(topology, &args.name)?.trim_end());
                Ok(())
            }),
            Command::Bird(args) => with(&args.dir, |topology| {
                say(bird_config(topology, &args.name)?.trim_end());
                Ok(())
            }),
        }
    }
}

// === impl CheckArgs ===

impl CheckArgs {
    fn run(self) -> anyhow::Result<u8> {
        let found = read(&self.dir)?;
        let usable = found.topology.is_some();
        let errors = found.of(Weight::Error).count();
        let warnings = found.of(Weight::Warning).count();
        if self.json {
            let findings = &found.findings;
            say_json(&json!({ "usable": usable, "findings": findings }))?;
        } else {
            for finding in &found.findings {
                say(finding);
            }
            let regions = found.topology.as_ref().map_or(0, |all| all.regions.len());
            let word = if usable {
                "can be used"
            } else {
                "cannot be used"
            };
            say(format_args!(
                "{}: {word}: {regions} regions, {errors} errors, {warnings} warnings",
                self.dir.display()
            ));
        }
        Ok(if usable { 0 } else { EXIT_WRONG })
    }
}

fn with(dir: &Path, show: impl FnOnce(&Topology) -> anyhow::Result<()>) -> anyhow::Result<u8> {
    let found = read(dir)?;
    let Some(topology) = &found.topology else {
        for finding in found.of(Weight::Error) {
            eprintln!("{finding}");
        }
        return Ok(EXIT_WRONG);
    };
    show(topology)?;
    Ok(0)
}

/// A topology that can be used.
///
/// # Errors
/// When its files cannot be read or it cannot be used.
pub fn usable(dir: &Path) -> anyhow::Result<Topology> {
    let found = read(dir)?;
    if found.topology.is_none() {
        let errors: Vec<String> = found.of(Weight::Error).map(ToString::to_string).collect();
        bail!("{} cannot be used\n{}", dir.display(), errors.join("\n"));
    }
    found.topology.context("a topology")
}

/// Every `.toml` file of a folder.
fn read(dir: &Path) -> anyhow::Result<Read> {
    let failed = || format!("cannot read {}", dir.display());
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| name.ends_with(".toml")) else {
            continue;
        };
        let size = std::fs::metadata(&path).with_context(failed)?.len();
        let fits = usize::try_from(size).is_ok_and(|size| size <= FILE_BYTES_MAX);
        ensure!(fits, "{} is too large for a region's file", path.display());
        ensure!(
            files.len() < FILES_MAX,
            "{} has more than {FILES_MAX} files",
            dir.display()
        );
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        files.push((name, text));
    }
    files.sort();
    let named = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    Ok(Read::files(named))
}

#[cfg(test)]
mod tests {
    use standin_edge::config::Config;

    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/three");

    /// What an operator adds.
    const ADDED: &str = "deployment_key = \"c3RhbmRpbi1leGFtcGxlLWRlcGxveW1lbnQta2V5ISE=\"\n";

    #[test]
    fn what_the_topology_says_of_an_edge_is_what_the_edge_reads() {
        let topology = usable(Path::new(EXAMPLE)).unwrap();
        let bank = "\n[[banks]]\nslug = \"first\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
        for (region, edge) in topology.edges() {
            let text = edge_config(&topology, &edge.name).unwrap();
            let text = format!("{ADDED}{text}{bank}");
            let loaded = Config::load(Some(&text), []);
            let (config, _) =
                loaded.unwrap_or_else(|error| panic!("{}: {error}\n{text}", edge.name));
            assert_eq!(
                (config.region.as_str(), config.edge_id),
                (region.name.as_str(), edge.id)
            );
            assert_eq!(
                (config.listen, config.admin_listen),
                (edge.listen, edge.admin)
            );
            assert_eq!(config.leave.as_millis(), 3_000);
            assert!(config.tls.is_some() && config.admin_tls.is_some());
            let alone = region.edges.len() == 1;
            assert_eq!(config.keepers.is_none(), alone);
            if let Some(keepers) = config.keepers {
                let founders: Vec<_> = keepers
                    .founders
                    .iter()
                    .map(|(id, at)| (id.0, at.clone()))
                    .collect();
                let voting: Vec<_> = region
                    .keepers()
                    .map(|edge| (edge.id, edge.link.to_string()))
                    .collect();
                assert_eq!(founders, voting);
                assert!(keepers.tls.is_some());
            }
            let servers = topology
                .regions
                .iter()
                .map(|region| region.redis.len())
                .sum::<usize>();
            assert_eq!(config.trip_cache.redis.len(), servers);
            assert!(config.trip_cache.redis_home.is_some() && config.ledger.postgres.is_some());
        }
    }

    #[test]
    fn the_exit_code_says_whether_it_can_be_used() {
        let check = |dir: &Path| {
            CheckArgs {
                dir: dir.to_owned(),
                json: true,
            }
            .run()
        };
        assert_eq!(check(Path::new(EXAMPLE)).unwrap(), 0);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(check(dir.path()).unwrap(), EXIT_WRONG);
        assert!(check(&dir.path().join("none")).is_err());
        let show = |name: &str| {
            let part = PartArgs {
                name: name.to_owned(),
                dir: EXAMPLE.into(),
            };
            Args {
                command: Command::Bird(part),
            }
            .run()
        };
        assert_eq!(show("west-2").unwrap(), 0);
        assert!(show("nobody").is_err());
    }

    #[test]
    fn a_topology_with_an_error_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        assert!(usable(dir.path()).is_err());
        std::fs::write(dir.path().join("east.toml"), "name = \"west\"").unwrap();
        let told = usable(dir.path()).unwrap_err().to_string();
        assert!(
            told.contains("error: east.toml: name: is \"west\""),
            "{told}"
        );
        assert!(usable(&dir.path().join("none")).is_err());
    }
}
