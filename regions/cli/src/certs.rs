//! `standin certs`: certificates for keeper links, for development.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_edge::links::EdgeName;
use standin_edge::links::issue::{Authority, DAYS_MAX};
use standin_wal::NodeId;

use crate::out::{say, say_json, table};

/// Everybody may read a certificate.
const OPEN: u32 = 0o644;
/// A key only its owner.
const SECRET: u32 = 0o600;
/// Certificates made at once.
const EDGES_MAX: usize = 100;

/// Makes certificates for keeper links, for development: an authority, and one for each edge.
///
/// Edges of a group trust each other by the authority in keepers-ca.pem; an edge's own certificate
/// says which edge it is, standin://edge/REGION/NUMBER, and is good for that one only. Give each
/// edge keepers-ca.pem and its own two files. keepers-ca.key stays with you: who has it can be any
/// edge.
///
/// Run it again, with the same --out, for more edges or fresh certificates: they come from the
/// authority that is there. Running edges take new files into use by themselves, within seconds.
///
/// Exit code: 0 made, 2 there are files in the way and nothing was made, 1 it could not be done.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin certs --region eu --edges 1,2,3 --out certs
  standin certs --region eu --edges 2 --out certs --force     renews that of edge 2
  openssl x509 -in certs/edge-1.pem -noout -text              shows one")]
pub struct Args {
    /// The edges' region.
    #[arg(long)]
    region: String,
    /// The edges' numbers, with commas between.
    #[arg(long, value_name = "NUMBERS", required = true, value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(1..))]
    edges: Vec<u64>,
    /// The directory for the files; it is made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many days the edges' certificates are good for. The authority's is for ten years.
    #[arg(long, default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// Replaces certificates of these edges that are there. The authority is never replaced.
    #[arg(long)]
    force: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    /// Certificate of the authority.
    ca: PathBuf,
    /// Whether the authority is new.
    ca_made: bool,
    edges: Vec<MadeEdge>,
}

#[derive(Debug, Serialize)]
struct MadeEdge {
    edge: u64,
    name: String,
    certificate: PathBuf,
    key: PathBuf,
    not_after: String,
}

/// Nothing was made: these are there.
#[derive(Debug, Serialize)]
struct InTheWay {
    in_the_way: Vec<PathBuf>,
}

/// Where the files of an authority are, or of an edge.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

// === impl Args ===

impl Args {
    /// Makes the files; gives the exit code.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn run(self) -> anyhow::Result<u8> {
        let in_the_way = self.in_the_way();
        if !in_the_way.is_empty() {
            if self.json {
                say_json(&InTheWay { in_the_way })?;
            } else {
                for file in &in_the_way {
                    eprintln!("standin: {} is there; --force replaces it", file.display());
                }
            }
            return Ok(2);
        }
        let made = self.make(SystemClock.now())?;
        if self.json {
            say_json(&made)?;
        } else {
            show(&made);
        }
        Ok(0)
    }

    fn edges(&self) -> BTreeSet<u64> {
        self.edges.iter().copied().collect()
    }

    fn in_the_way(&self) -> Vec<PathBuf> {
        let files = self.edges().into_iter().flat_map(|edge| {
            let Pair { certificate, key } = Pair::of_edge(&self.out, edge);
            [certificate, key]
        });
        files.filter(|file| !self.force && file.exists()).collect()
    }

    fn make(&self, now: Timestamp) -> anyhow::Result<Made> {
        let edges = self.edges();
        ensure!(
            edges.len() <= EDGES_MAX,
            "at most {EDGES_MAX} edges at once"
        );
        let mut names = Vec::new();
        for edge in edges {
            let name = EdgeName {
                region: self.region.clone(),
                node: NodeId(edge),
            };
            // What edges would not read back is not issued.
            names.push(name.to_string().parse::<EdgeName>()?);
        }
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))?;
        let (authority, ca_made) = self.authority(now)?;
        let mut made = Made {
            ca: Pair::of_authority(&self.out).certificate,
            ca_made,
            edges: Vec::new(),
        };
        for name in names {
            let issued = authority.issue(&name, self.days, now)?;
            let files = Pair::of_edge(&self.out, name.node.0);
            files.write(&issued.certificate, &issued.key, self.force)?;
            made.edges.push(MadeEdge {
                edge: name.node.0,
                name: name.to_string(),
                certificate: files.certificate,
                key: files.key,
                not_after: issued.not_after.to_string(),
            });
        }
        Ok(made)
    }

    /// The authority that is there, else a new one; and whether it is new.
    fn authority(&self, now: Timestamp) -> anyhow::Result<(Authority, bool)> {
        let files = Pair::of_authority(&self.out);
        let Pair { certificate, key } = &files;
        match (certificate.exists(), key.exists()) {
            (true, true) => {
                let read = |file: &Path| {
                    std::fs::read_to_string(file)
                        .with_context(|| format!("cannot read {}", file.display()))
                };
                let authority = Authority::from_pem(&read(certificate)?, &read(key)?)
                    .with_context(|| format!("{} does not serve", certificate.display()))?;
                Ok((authority, false))
            }
            (false, false) => {
                let authority = Authority::new(DAYS_MAX, now)?;
                files.write(authority.certificate(), &authority.key(), false)?;
                Ok((authority, true))
            }
            (true, false) => bail!(
                "{} is there without its key: put the key back, or choose another --out",
                certificate.display()
            ),
            (false, true) => bail!(
                "{} is there without its certificate: put that back, or choose another --out",
                key.display()
            ),
        }
    }
}

fn show(made: &Made) {
    let whose = if made.ca_made {
        "a new authority"
    } else {
        "the authority that was there"
    };
    say(format_args!("{} is of {whose}.", made.ca.display()));
    let mut edges = table(["edge", "certificate", "key", "good until"]);
    for edge in &made.edges {
        edges.add_row([
            edge.name.clone(),
            edge.certificate.display().to_string(),
            edge.key.display().to_string(),
            edge.not_after.clone(),
        ]);
    }
    say(edges);
}

// === impl Pair ===

impl Pair {
    fn of_authority(dir: &Path) -> Self {
        Self {
            certificate: dir.join("keepers-ca.pem"),
            key: dir.join("keepers-ca.key"),
        }
    }

    fn of_edge(dir: &Path, edge: u64) -> Self {
        Self {
            certificate: dir.join(format!("edge-{edge}.pem")),
            key: dir.join(format!("edge-{edge}.key")),
        }
    }

    fn write(&self, certificate: &str, key: &str, force: bool) -> anyhow::Result<()> {
        write(&self.key, key, SECRET, force)?;
        write(&self.certificate, certificate, OPEN, force)
    }
}

/// Writes a file that is whole whenever it is there, and never one that anybody else could read
/// meanwhile.
fn write(file: &Path, text: &str, mode: u32, force: bool) -> anyhow::Result<()> {
    let written = || {
        let dir = file.parent().unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new()
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(dir)?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        if force {
            temporary.persist(file).map_err(|error| error.error)
        } else {
            temporary
                .persist_noclobber(file)
                .map_err(|error| error.error)
        }
    };
    written().with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests;
