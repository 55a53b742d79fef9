//! `standin certs`: certificates for keeper links, banks and operators, for development.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use standin_core::clock::{Clock, SystemClock, Timestamp};
use standin_core::id::BankId;
use standin_edge::issue::{Authority, DAYS_MAX, Subject, Whose};
use standin_edge::links::EdgeName;
use standin_wal::NodeId;

use crate::out::{say, say_json, table};

/// Everybody may read a certificate.
const OPEN: u32 = 0o644;
/// A key only its owner.
const SECRET: u32 = 0o600;
/// Certificates made at once.
const CERTIFICATES_MAX: usize = 100;

/// Makes certificates for development: authorities, and certificates of them.
///
/// There are three authorities, made when they are first needed, and none is trusted in another's
/// place. keepers-ca signs edges, for the links between them: an edge's certificate says which edge it
/// is, standin://edge/REGION/NUMBER. banks-ca signs banks (standin://bank/SLUG) and door, the listener
/// they connect to. operators-ca signs operators (standin://operator/NAME) and admin, theirs. Each gets
/// the .pem of its authority and its own two files. The authorities' .key files stay with you: who has
/// one can be anybody.
///
/// Run it again, with the same --out, for more or fresh certificates: they come from the authorities
/// that are there. Running edges take new files into use by themselves, within seconds.
///
/// Exit code: 0 made, 2 there are files in the way and nothing was made, 1 it could not be done.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin certs --region eu --edges 1,2,3 --out certs         for keeper links
  standin certs --banks first --hosts localhost,127.0.0.1 --out certs
                                                              a bank, and the listener it connects to
  standin certs --operators alice --hosts localhost --out certs
  standin certs --region eu --edges 2 --out certs --force     renews that of edge 2
  openssl x509 -in certs/edge-1.pem -noout -text              shows one")]
pub struct Args {
    /// The edges' region.
    #[arg(long, default_value = "local")]
    region: String,
    /// The edges' numbers, with commas between.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',',
          value_parser = clap::value_parser!(u64).range(1..))]
    edges: Vec<u64>,
    /// Banks' slugs, with commas between.
    #[arg(long, value_name = "SLUGS", value_delimiter = ',')]
    banks: Vec<String>,
    /// Operators' names, with commas between.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    operators: Vec<String>,
    /// Names and addresses that banks (with --banks) and operators (with --operators) know the
    /// listeners by, with commas between: makes door and admin.
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    hosts: Vec<String>,
    /// The directory for the files; it is made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many days the certificates are good for. The authorities' are for ten years.
    #[arg(long, default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    /// Replaces certificates that are there. An authority is never replaced.
    #[arg(long)]
    force: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    authorities: Vec<MadeAuthority>,
    certificates: Vec<MadeCertificate>,
}

#[derive(Debug, Serialize)]
struct MadeAuthority {
    /// `keepers`, `banks` or `operators`.
    whose: &'static str,
    certificate: PathBuf,
    /// Whether it is new.
    made: bool,
}

#[derive(Debug, Serialize)]
struct MadeCertificate {
    /// Whom it is for.
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

/// A certificate that is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Edge(EdgeName),
    Bank(BankId),
    Operator(String),
    Listener(Whose, Vec<String>),
}

/// Where the files of an authority are, or of a certificate.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// Makes a development set for one bank and the listener it connects to on loopback.
pub(crate) fn of_bank(bank: &BankId, out: &Path) -> anyhow::Result<()> {
    let wanted = [
        Wanted::Bank(bank.clone()),
        Wanted::Listener(
            Whose::Banks,
            vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
        ),
    ];
    let args = Args {
        region: String::new(),
        edges: Vec::new(),
        banks: Vec::new(),
        operators: Vec::new(),
        hosts: Vec::new(),
        out: out.to_owned(),
        days: 30,
        force: true,
        json: false,
    };
    args.make(&wanted, SystemClock.now())?;
    Ok(())
}

// === impl Args ===

impl Args {
    /// Makes the files; gives the exit code.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn run(self) -> anyhow::Result<u8> {
        let wanted = self.wanted()?;
        let in_the_way = self.in_the_way(&wanted);
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
        let made = self.make(&wanted, SystemClock.now())?;
        if self.json {
            say_json(&made)?;
        } else {
            show(&made);
        }
        Ok(0)
    }

    fn wanted(&self) -> anyhow::Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for edge in self.edges.iter().copied().collect::<BTreeSet<u64>>() {
            let name = EdgeName {
                region: self.region.clone(),
                node: NodeId(edge),
            };
            // What edges would not read back is not issued.
            wanted.push(Wanted::Edge(name.to_string().parse()?));
        }
        for bank in self.banks.iter().collect::<BTreeSet<_>>() {
            let slug = bank.parse();
            let slug = slug.with_context(|| format!("\"{bank}\" is no bank's slug"))?;
            wanted.push(Wanted::Bank(slug));
        }
        for operator in self.operators.iter().collect::<BTreeSet<_>>() {
            wanted.push(Wanted::Operator(operator.clone()));
        }
        let hosts = || self.hosts.clone();
        if !self.hosts.is_empty() && !self.banks.is_empty() {
            wanted.push(Wanted::Listener(Whose::Banks, hosts()));
        }
        if !self.hosts.is_empty() && !self.operators.is_empty() {
            wanted.push(Wanted::Listener(Whose::Operators, hosts()));
        }
        ensure!(
            !wanted.is_empty(),
            "say whom for: --edges, --banks or --operators"
        );
        ensure!(
            wanted.len() <= CERTIFICATES_MAX,
            "at most {CERTIFICATES_MAX} certificates at once"
        );
        ensure!(
            self.hosts.is_empty() || !(self.banks.is_empty() && self.operators.is_empty()),
            "--hosts goes with --banks or --operators"
        );
        Ok(wanted)
    }

    fn in_the_way(&self, wanted: &[Wanted]) -> Vec<PathBuf> {
        let files = wanted.iter().flat_map(|wanted| {
            let Pair { certificate, key } = Pair::of(&self.out, &wanted.stem());
            [certificate, key]
        });
        files.filter(|file| !self.force && file.exists()).collect()
    }

    fn make(&self, wanted: &[Wanted], now: Timestamp) -> anyhow::Result<Made> {
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make {}", self.out.display()))?;
        let mut made = Made {
            authorities: Vec::new(),
            certificates: Vec::new(),
        };
        for whose in [Whose::Keepers, Whose::Banks, Whose::Operators] {
            let of_it: Vec<_> = wanted.iter().filter(|it| it.whose() == whose).collect();
            if of_it.is_empty() {
                continue;
            }
            let (authority, is_new) = self.authority(whose, now)?;
            made.authorities.push(MadeAuthority {
                whose: whose.as_str(),
                certificate: Pair::of_authority(&self.out, whose).certificate,
                made: is_new,
            });
            for wanted in of_it {
                let issued = authority.issue(&wanted.subject(), self.days, now)?;
                let files = Pair::of(&self.out, &wanted.stem());
                files.write(&issued.certificate, &issued.key, self.force)?;
                made.certificates.push(MadeCertificate {
                    name: wanted.name(),
                    certificate: files.certificate,
                    key: files.key,
                    not_after: issued.not_after.to_string(),
                });
            }
        }
        Ok(made)
    }

    /// The authority that is there, else a new one; and whether it is new.
    fn authority(&self, whose: Whose, now: Timestamp) -> anyhow::Result<(Authority, bool)> {
        let files = Pair::of_authority(&self.out, whose);
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
                let authority = Authority::new(whose, DAYS_MAX, now)?;
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
    for authority in &made.authorities {
        let whose = if authority.made {
            "a new authority"
        } else {
            "the authority that was there"
        };
        let file = authority.certificate.display();
        say(format_args!("{file} is of {whose}."));
    }
    let mut certificates = table(["for", "certificate", "key", "good until"]);
    for made in &made.certificates {
        certificates.add_row([
            made.name.clone(),
            made.certificate.display().to_string(),
            made.key.display().to_string(),
            made.not_after.clone(),
        ]);
    }
    say(certificates);
}

// === impl Wanted ===

impl Wanted {
    fn whose(&self) -> Whose {
        match self {
            Self::Edge(_) => Whose::Keepers,
            Self::Bank(_) => Whose::Banks,
            Self::Operator(_) => Whose::Operators,
            Self::Listener(whose, _) => *whose,
        }
    }

    fn subject(&self) -> Subject<'_> {
        match self {
            Self::Edge(name) => Subject::Edge(name),
            Self::Bank(slug) => Subject::Bank(slug),
            Self::Operator(name) => Subject::Operator(name),
            Self::Listener(_, hosts) => Subject::Listener(hosts),
        }
    }

    /// What its files are called.
    fn stem(&self) -> String {
        match self {
            Self::Edge(name) => format!("edge-{}", name.node.0),
            Self::Bank(slug) => format!("bank-{slug}"),
            Self::Operator(name) => format!("operator-{name}"),
            Self::Listener(Whose::Operators, _) => "admin".to_owned(),
            Self::Listener(Whose::Banks | Whose::Keepers, _) => "door".to_owned(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Listener(_, hosts) => hosts.join(", "),
            Self::Edge(_) | Self::Bank(_) | Self::Operator(_) => {
                self.subject().uri().unwrap_or_default()
            }
        }
    }
}

// === impl Pair ===

impl Pair {
    fn of_authority(dir: &Path, whose: Whose) -> Self {
        Self::of(dir, &format!("{}-ca", whose.as_str()))
    }

    fn of(dir: &Path, stem: &str) -> Self {
        Self {
            certificate: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
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
