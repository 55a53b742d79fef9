//! The folder of `standin serve`: the log, the deployment key, the secrets.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::secret::{EXAMPLE_BANK_SECRET, EXAMPLE_PLATFORM_SECRET, fresh, fresh_key};
use crate::world::World;

/// The bank's slug.
pub(super) const BANK: &str = "example-bank";

/// An opened data folder.
pub(crate) struct DataDir {
    dir: PathBuf,
    key: String,
    bank_secret: String,
    pub(super) platform_secret: String,
}

// === impl DataDir ===

impl DataDir {
    /// Opens the folder, or makes it with a fresh key and secrets. The example's secrets are the
    /// public ones.
    pub(crate) fn open(dir: Option<PathBuf>, example: bool) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir,
            None => default_dir(example)?,
        };
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder
            .create(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
        let key = kept(&dir.join("deployment.key"), fresh_key)?;
        let public = |text: &str| text.to_owned();
        let (bank_secret, platform_secret) = if example {
            (public(EXAMPLE_BANK_SECRET), public(EXAMPLE_PLATFORM_SECRET))
        } else {
            (
                kept(&dir.join("bank.secret"), fresh)?,
                kept(&dir.join("platform.secret"), fresh)?,
            )
        };
        Ok(Self {
            dir,
            key,
            bank_secret,
            platform_secret,
        })
    }

    /// The edge's configuration on this folder.
    pub(crate) fn config(
        &self,
        listen: &SocketAddr,
        admin_listen: &SocketAddr,
    ) -> anyhow::Result<toml::Table> {
        let Some(wal) = self.dir.join("wal").to_str().map(str::to_owned) else {
            bail!("{}: a path in UTF-8 is needed", self.dir.display());
        };
        let mut bank = toml::Table::new();
        bank.insert("slug".to_owned(), BANK.into());
        bank.insert("currency".to_owned(), "USD".into());
        bank.insert("secrets".to_owned(), vec![self.bank_secret.clone()].into());
        let mut log = toml::Table::new();
        log.insert("dir".to_owned(), wal.into());
        let mut text = toml::Table::new();
        text.insert("listen".to_owned(), listen.to_string().into());
        text.insert("admin_listen".to_owned(), admin_listen.to_string().into());
        text.insert("deployment_key".to_owned(), self.key.clone().into());
        text.insert("wal".to_owned(), log.into());
        text.insert("banks".to_owned(), vec![toml::Value::Table(bank)].into());
        Ok(text)
    }

    /// Where everything is, for the operator.
    pub(super) fn places(&self, world: &World) -> String {
        let at = |name: &str| self.dir.join(name).display().to_string();
        format!(
            "banks     http://{}/v1/banks/{BANK}/authorizations  (secret: {})\n\
             operators http://{}/statusz\n\
             platform  http://{}/v1/orders  (secret: {})\n\
             data      {}\n\
             Stop with Ctrl-C.",
            world.edge().address(),
            at("bank.secret"),
            world.edge().admin_address(),
            world.trips_address(),
            at("platform.secret"),
            self.dir.display(),
        )
    }
}

/// A folder of this user: the example's own, so that it never meets real data.
fn default_dir(example: bool) -> anyhow::Result<PathBuf> {
    let name = if example {
        "standin-example"
    } else {
        "standin"
    };
    let of = |variable: &str| std::env::var_os(variable).filter(|path| !path.is_empty());
    let base = of("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| of("HOME").map(|home| Path::new(&home).join(".local/share")));
    Ok(base
        .context("neither XDG_DATA_HOME nor HOME is set: give --data DIR")?
        .join(name))
}

/// The text kept in a file that only its owner reads; made on first use.
pub(crate) fn kept(path: &Path, fresh: impl FnOnce() -> String) -> anyhow::Result<String> {
    let place = || path.display().to_string();
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let text = fresh();
            file.write_all(text.as_bytes()).with_context(place)?;
            file.sync_all().with_context(place)?;
            Ok(text)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(fs::read_to_string(path)
            .with_context(place)?
            .trim()
            .to_owned()),
        Err(error) => Err(error).with_context(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_key_and_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let first = DataDir::open(Some(dir.clone()), false).unwrap();
        let again = DataDir::open(Some(dir.clone()), false).unwrap();
        assert_eq!(
            (&first.key, &first.bank_secret),
            (&again.key, &again.bank_secret)
        );
        let example = DataDir::open(Some(dir), true).unwrap();
        assert_eq!(example.bank_secret, EXAMPLE_BANK_SECRET);
        assert_eq!(example.key, first.key);
    }
}
