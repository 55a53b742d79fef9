//! Disks that fail: an ext4 of its own that loses its power, a file system that is full, and writes
//! that fail by the system's own word.
//!
//! Losing power is ext4's shutdown without a flush of its journal: what was not synced is gone, what
//! was is there. Needs root and loop devices, `mkfs.ext4`, `python3` and `strace`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, ProcessError};
use crate::tool::{ToolError, need_root, run};

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: Python, because an ioctl is unsafe code.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
     fd = os.open(sys.argv[1], os.O_RDONLY)\n\
     fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
const SYNCED: &str = "synced-before-the-power-went";
const NOT_SYNCED: &str = "not-synced-before-the-power-went";
/// What puts bytes on a disk.
const WRITES: &str = "pwrite64,pwritev,write,fsync,fdatasync";
/// Whoever was killed may hold its files for a moment.
const UNMOUNT_TRIES: u32 = 100;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(50);

/// An ext4 on a file, or a tmpfs of a fixed size, mounted. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    /// The file behind a loop mount.
    image: Option<PathBuf>,
    at: PathBuf,
}

/// How a power loss is known to have been one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PowerLoss {
    /// Bytes written and not synced just before are gone.
    pub lost_unsynced: bool,
    /// Bytes synced just before are there.
    pub kept_synced: bool,
}

// === impl Disk ===

impl Disk {
    /// An empty ext4 of so many MiB at `folder/name`, on an image beside it.
    ///
    /// # Errors
    /// When this process is not root's or a tool refuses.
    pub fn ext4(folder: &Path, name: &str, mib: u32) -> Result<Self, ToolError> {
        need_root("a loop mount")?;
        let (image, at) = (folder.join(format!("{name}.img")), folder.join(name));
        let bytes = u64::from(mib).saturating_mul(1 << 20);
        File::create(&image)?.set_len(bytes)?;
        run("mkfs.ext4", "e2fsprogs", &["-q", "-F", text(&image)?])?;
        std::fs::create_dir(&at)?;
        run("mount", "mount", &["-o", "loop", text(&image)?, text(&at)?])?;
        Ok(Self {
            image: Some(image),
            at,
        })
    }

    /// A tmpfs of so many KiB at `folder/name`.
    ///
    /// # Errors
    /// When this process is not root's or `mount` refuses.
    pub fn tmpfs(folder: &Path, name: &str, kib: u32) -> Result<Self, ToolError> {
        need_root("a tmpfs")?;
        let at = folder.join(name);
        std::fs::create_dir(&at)?;
        let size = format!("size={kib}k");
        run(
            "mount",
            "mount",
            &["-t", "tmpfs", "-o", &size, "standin-drill", text(&at)?],
        )?;
        Ok(Self { image: None, at })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Loses its power, at once, under whatever runs on it. From here on every write fails; whoever
    /// ran on it must have ended before [`Disk::power_returns`].
    ///
    /// # Errors
    /// When it is no ext4.
    pub fn lose_power(&self) -> Result<(), ToolError> {
        let synced = self.at.join(SYNCED);
        std::fs::write(&synced, SYNCED)?;
        File::open(&synced)?.sync_all()?;
        File::open(&self.at)?.sync_all()?;
        std::fs::write(self.at.join(NOT_SYNCED), NOT_SYNCED)?;
        run("python3", "python3", &["-c", SHUTDOWN, text(&self.at)?]).map(drop)
    }

    /// Mounts it again and says what it lost.
    ///
    /// # Errors
    /// When somebody still uses it.
    pub async fn power_returns(&self) -> Result<PowerLoss, ToolError> {
        let image = self.image.as_deref().unwrap_or(&self.at);
        unmount(&self.at).await?;
        run(
            "mount",
            "mount",
            &["-o", "loop", text(image)?, text(&self.at)?],
        )?;
        let (synced, not_synced) = (self.at.join(SYNCED), self.at.join(NOT_SYNCED));
        let loss = PowerLoss {
            lost_unsynced: !not_synced.exists() || std::fs::read(&not_synced)?.is_empty(),
            kept_synced: std::fs::read(&synced).is_ok_and(|found| found == SYNCED.as_bytes()),
        };
        for canary in [&synced, &not_synced] {
            if canary.exists() {
                std::fs::remove_file(canary)?;
            }
        }
        Ok(loss)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still uses it is on its way out.
        let unmounted = text(&self.at).and_then(|at| run("umount", "mount", &["-l", at]));
        if let Err(error) = unmounted {
            tracing::warn!(at = %self.at.display(), %error, "a disk is still mounted");
        }
    }
}

/// Makes writes and syncs of a running process to `files` fail with EIO, until what is given back is
/// dropped; `log` names each that failed.
///
/// # Errors
/// When `strace` does not start.
pub fn fail_writes(of: u32, files: &[PathBuf], log: &Path) -> Result<Process, ProcessError> {
    inject(of, files, "error=EIO", log)
}

/// Makes each write and sync of a running process to `files` take so much longer, until what is given
/// back is dropped; `log` names each.
///
/// # Errors
/// When `strace` does not start.
pub fn slow_writes(
    of: u32,
    files: &[PathBuf],
    by: Duration,
    log: &Path,
) -> Result<Process, ProcessError> {
    let what = format!("delay_enter={}", by.as_micros());
    inject(of, files, &what, log)
}

fn inject(of: u32, files: &[PathBuf], what: &str, log: &Path) -> Result<Process, ProcessError> {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-p", &of.to_string()]);
    for file in files {
        command.arg("-P").arg(file);
    }
    command.arg("-e").arg(format!("trace={WRITES}"));
    command.arg("-e").arg(format!("inject={WRITES}:{what}"));
    Process::spawn("strace", command, log)
}

async fn unmount(at: &Path) -> Result<(), ToolError> {
    let at = text(at)?;
    for _ in 1..UNMOUNT_TRIES {
        if run("umount", "mount", &[at]).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(UNMOUNT_PAUSE).await;
    }
    run("umount", "mount", &[at]).map(drop)
}

fn text(path: &Path) -> Result<&str, ToolError> {
    path.to_str().ok_or_else(|| {
        ToolError::Io(std::io::Error::other(format!(
            "{} is not UTF-8",
            path.display()
        )))
    })
}
