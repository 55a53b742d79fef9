//! Things that are made of files, and the look at those files now and then.
//!
//! What is in use changes as a whole or not at all: files that do not serve leave what was made of
//! the old ones in use. Whoever owns the thing says so to people ([`Watched::problem`]). Files are
//! read rather than watched: what mounts secrets swaps links, which no watch of a file sees.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use standin_core::clock::Timestamp;

/// How often owners look at their files.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A file larger than this is none of ours.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How something is made of files.
pub trait Recipe: Send + Sync + 'static {
    /// What is made.
    type Made: Send + Sync + 'static;
    /// Why files do not serve.
    type Error: std::error::Error + Send;

    /// The files, always the same.
    fn files(&self) -> Vec<PathBuf>;

    /// Makes it of the contents of [`Recipe::files`], in their order, beside what is in use; must not
    /// block.
    ///
    /// # Errors
    /// When the files do not serve.
    fn make(
        &self,
        files: Vec<FileRead>,
        in_use: Option<&Self::Made>,
        now: Timestamp,
    ) -> Result<Self::Made, Self::Error>;

    /// What people should know of the thing in use before it is late.
    fn warning(&self, made: &Self::Made, now: Timestamp) -> Option<String>;
}

/// One file at one moment.
#[derive(Debug)]
pub struct FileRead {
    /// Which.
    pub path: PathBuf,
    /// What it holds, or why it cannot be read.
    pub bytes: io::Result<Vec<u8>>,
}

/// What looking at the files again did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// They are those in use.
    Same,
    /// What is made of them is in use from now on.
    Changed,
}

/// What is made of files, and is in use.
pub struct Watched<R: Recipe> {
    recipe: R,
    current: ArcSwap<R::Made>,
    digest: Mutex<[u8; 32]>,
    /// What the last look saw.
    seen: Mutex<[u8; 32]>,
    reloads: AtomicU64,
    error: Mutex<Option<String>>,
}

// === impl Watched ===

impl<R: Recipe> Watched<R> {
    /// Takes the files into use.
    ///
    /// # Errors
    /// When they do not serve.
    pub async fn open(recipe: R, now: Timestamp) -> Result<Self, R::Error> {
        let files = read(recipe.files()).await;
        let digest = digest(&files);
        let made = recipe.make(files, None, now)?;
        Ok(Self {
            recipe,
            current: ArcSwap::from_pointee(made),
            digest: Mutex::new(digest),
            seen: Mutex::new(digest),
            reloads: AtomicU64::new(0),
            error: Mutex::default(),
        })
    }

    /// What is in use.
    pub fn current(&self) -> Arc<R::Made> {
        self.current.load_full()
    }

    /// Looks at the files, and takes them when the look before saw the same: half of a file that is
    /// being written may read like a whole one.
    ///
    /// # Errors
    /// When they do not serve; what was in use still is.
    pub async fn look(&self, now: Timestamp) -> Result<Reloaded, R::Error> {
        let files = read(self.recipe.files()).await;
        let digest = digest(&files);
        let before = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *seen, digest)
        };
        if before == digest {
            self.try_take(files, now)
        } else {
            Ok(Reloaded::Same)
        }
    }

    /// Takes the files as they are now.
    ///
    /// # Errors
    /// When they do not serve; what was in use still is.
    pub async fn reload(&self, now: Timestamp) -> Result<Reloaded, R::Error> {
        let files = read(self.recipe.files()).await;
        self.try_take(files, now)
    }

    fn try_take(&self, files: Vec<FileRead>, now: Timestamp) -> Result<Reloaded, R::Error> {
        let reloaded = self.take(files, now);
        let error = reloaded.as_ref().err().map(ToString::to_string);
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        reloaded
    }

    fn take(&self, files: Vec<FileRead>, now: Timestamp) -> Result<Reloaded, R::Error> {
        let mut in_use = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest(&files);
        if *in_use == digest {
            return Ok(Reloaded::Same);
        }
        let made = self.recipe.make(files, Some(&self.current.load()), now)?;
        self.current.store(Arc::new(made));
        *in_use = digest;
        self.reloads.fetch_add(1, Ordering::Relaxed);
        Ok(Reloaded::Changed)
    }

    /// Times that other files were taken into use, since the start.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Why the files that are there are not in use.
    pub fn error(&self) -> Option<String> {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        error.clone()
    }

    /// What people should know: the files that are there are not in use, or what is in use ends soon.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        let error = self.error();
        error
            .map(|error| format!("what was in use stays: {error}"))
            .or_else(|| self.recipe.warning(&self.current.load(), now))
    }
}

/// Makes something of its files as they are now; blocks.
///
/// # Errors
/// When they do not serve.
pub fn make_now<R: Recipe>(recipe: &R, now: Timestamp) -> Result<R::Made, R::Error> {
    let files = recipe.files().into_iter().map(read_file).collect();
    recipe.make(files, None, now)
}

async fn read(files: Vec<PathBuf>) -> Vec<FileRead> {
    let names = files.clone();
    let reading = move || files.into_iter().map(read_file).collect();
    let gone = |cancelled: tokio::task::JoinError| {
        let because = cancelled.to_string();
        let unread = |path| FileRead {
            path,
            bytes: Err(io::Error::other(because.clone())),
        };
        names.into_iter().map(unread).collect()
    };
    tokio::task::spawn_blocking(reading)
        .await
        .unwrap_or_else(gone)
}

fn read_file(path: PathBuf) -> FileRead {
    FileRead {
        bytes: bytes_of(&path),
        path,
    }
}

fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read <= FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(io::Error::other("it is too large"))
    }
}

fn digest(files: &[FileRead]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        match &file.bytes {
            Ok(bytes) => {
                digest.update([1]);
                digest.update(bytes.len().to_le_bytes());
                digest.update(bytes);
            }
            Err(_) => digest.update([0]),
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of a text that must not be "bad".
    struct Length(PathBuf);

    impl Recipe for Length {
        type Made = usize;
        type Error = io::Error;

        fn files(&self) -> Vec<PathBuf> {
            vec![self.0.clone()]
        }

        fn make(
            &self,
            files: Vec<FileRead>,
            _in_use: Option<&usize>,
            _now: Timestamp,
        ) -> Result<usize, io::Error> {
            let mut length = 0_usize;
            for file in files {
                let bytes = file.bytes?;
                if bytes == b"bad" {
                    return Err(io::Error::other("bad"));
                }
                length = length.saturating_add(bytes.len());
            }
            Ok(length)
        }

        fn warning(&self, made: &usize, _now: Timestamp) -> Option<String> {
            (*made == 1).then(|| "short".to_owned())
        }
    }

    #[tokio::test]
    async fn what_does_not_serve_leaves_the_old_in_use_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let now = Timestamp::from_millis(0);
        let open = || Watched::open(Length(path.clone()), now);
        assert!(open().await.is_err());
        std::fs::write(&path, "abc").unwrap();
        let watched = open().await.unwrap();
        assert_eq!(watched.reload(now).await.unwrap(), Reloaded::Same);
        std::fs::write(&path, "bad").unwrap();
        for _ in 0..2 {
            assert!(watched.reload(now).await.is_err());
            assert_eq!((*watched.current(), watched.reloads()), (3, 0));
            assert!(watched.problem(now).unwrap().contains("stays: bad"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(watched.reload(now).await.is_err());
        assert!(watched.problem(now).unwrap().contains("No such file"));
        std::fs::write(&path, "a").unwrap();
        assert_eq!(watched.reload(now).await.unwrap(), Reloaded::Changed);
        assert_eq!((*watched.current(), watched.reloads()), (1, 1));
        assert_eq!(watched.problem(now).as_deref(), Some("short"));
        // A look takes what it has seen twice.
        std::fs::write(&path, "ab").unwrap();
        assert_eq!(watched.look(now).await.unwrap(), Reloaded::Same);
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(watched.look(now).await.unwrap(), Reloaded::Same);
        assert_eq!(watched.look(now).await.unwrap(), Reloaded::Changed);
        assert_eq!((*watched.current(), watched.reloads()), (4, 2));
        let large = vec![b'x'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
        std::fs::write(&path, large).unwrap();
        assert!(
            watched
                .reload(now)
                .await
                .unwrap_err()
                .to_string()
                .contains("too large")
        );
    }
}
