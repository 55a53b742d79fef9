//! Copies of the ledger's tables kept on disk, for starting while the ledger is away.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

/// Replaces a copy whole: a crash leaves the old one or the new one.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut out = BufWriter::new(File::create(&fresh)?);
    write(&mut out)?;
    out.flush()?;
    // Synced before it takes the old one's name: a power loss would else leave an empty file.
    out.get_ref().sync_all()?;
    std::fs::rename(&fresh, path)
}

/// Opens a copy; `None` if there is none.
pub(crate) fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::new(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
