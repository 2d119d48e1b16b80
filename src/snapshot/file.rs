//! The snapshot's file: a line that names the format, a line of JSON that says whose it is, slices with their lengths, a
//! zero, and the SHA-256 of it all. It must not know what is in a slice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::digest::{Context, Digest, SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};
use spillgate_core::wire::slice::SLICE_BYTES_MAX;

/// The version of the format that is written.
pub const VERSION: u32 = 1;
const MAGIC: &str = "spillgate snapshot ";
/// The longest of the first two lines, in bytes.
const LINE_BYTES_MAX: u64 = 4096;

/// Whose a snapshot is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id.
    pub node: String,
    /// The cluster's name; a single node has none.
    pub cluster: Option<String>,
    /// The run that wrote it.
    pub incarnation: u64,
    /// Tells whether keys are hashed as they were: of a cluster a fingerprint, since its key is secret; of a single node
    /// the key itself, which is random and known to nobody else.
    key: String,
}

impl Identity {
    /// Of this node; `hash_key` is the key of the hash of keys.
    #[must_use]
    pub fn new(node: &str, cluster: Option<&str>, incarnation: u64, hash_key: &[u8; 16]) -> Self {
        let key = match cluster {
            Some(_) => hex(&digest(&SHA256, &[b"spillgate snapshot", &hash_key[..]].concat()).as_ref()[..8]),
            None => hex(hash_key),
        };
        Self { node: node.to_owned(), cluster: cluster.map(ToOwned::to_owned), incarnation, key }
    }

    fn is_of(&self, node: &str, cluster: Option<&str>) -> bool {
        self.node == node && self.cluster.as_deref() == cluster
    }
}

/// Why a file is not this node's snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("there is none")]
    Absent,
    #[error("it can't be read: {0}")]
    Unreadable(io::Error),
    #[error("it is no whole snapshot: {0}")]
    Torn(String),
    #[error("it has format {0}, this version reads {VERSION}: run the version that wrote it to use it")]
    Newer(u32),
    #[error("it is of {0}")]
    Foreign(String),
}

impl Unusable {
    /// What a file that was set aside for this is called after.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Absent | Self::Unreadable(_) => "unreadable",
            Self::Torn(_) => "torn",
            Self::Newer(_) => "newer",
            Self::Foreign(_) => "foreign",
        }
    }
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::UnexpectedEof => Self::Torn("it ends too early".to_owned()),
            io::ErrorKind::InvalidData => Self::Torn(error.to_string()),
            _ => Self::Unreadable(error),
        }
    }
}

/// Takes in all that passes.
struct Summed<T> {
    inner: T,
    sum: Context,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, sum: Context::new(&SHA256) }
    }

    fn sum(&self) -> Digest {
        self.sum.clone().finish()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.update(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type Reader = Summed<BufReader<File>>;

/// A snapshot of this node's, whole.
#[derive(Debug)]
pub(super) struct Found {
    reader: Reader,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// Opens the snapshot at `path` and reads all of it once, to see that it is whole.
pub(super) fn open(path: &Path, own: &Identity, bytes_max: u64) -> Result<Found, Unusable> {
    let bytes = fs::metadata(path)?.len();
    if bytes > bytes_max {
        return Err(Unusable::Torn(format!("it has {bytes} bytes, at most {bytes_max} are written")));
    }
    let (mut reader, identity) = begin(path)?;
    // before whose it is: what is torn may say anything
    while next_slice(&mut reader)?.is_some() {}
    let sum = reader.sum();
    let mut told = [0; SHA256_OUTPUT_LEN];
    reader.read_exact(&mut told)?;
    if sum.as_ref() != told {
        return Err(Unusable::Torn("its checksum is wrong".to_owned()));
    }
    if reader.read(&mut [0])? > 0 {
        return Err(Unusable::Torn("something follows its end".to_owned()));
    }
    if !identity.is_of(&own.node, own.cluster.as_deref()) {
        let cluster = identity.cluster.map_or("no cluster".to_owned(), |c| format!("cluster {c:?}"));
        return Err(Unusable::Foreign(format!("node {:?} of {cluster}", identity.node)));
    }
    if identity.key != own.key {
        return Err(Unusable::Foreign("a time when the cluster had another secret".to_owned()));
    }
    Ok(Found { reader: begin(path)?.0 })
}

impl Found {
    /// Hands out each slice; the sums of what `take` says.
    pub(super) fn hand_out(
        mut self,
        mut take: impl FnMut(&[u8]) -> Result<(usize, usize), String>,
    ) -> Result<(usize, usize), Unusable> {
        let (mut keys, mut dropped) = (0, 0);
        while let Some(slice) = next_slice(&mut self.reader)? {
            let taken = take(&slice).map_err(Unusable::Torn)?;
            (keys, dropped) = (keys + taken.0, dropped + taken.1);
        }
        Ok((keys, dropped))
    }
}

/// See [`super::peek`]. Of a file that is torn further on it may tell too: its incarnation is only to be surpassed, and
/// a key that nothing was hashed with does no harm.
pub(super) fn peek(path: &Path, node: &str, cluster: Option<&str>) -> Option<(u64, Option<[u8; 16]>)> {
    let (_, identity) = begin(path).ok()?;
    if !identity.is_of(node, cluster) {
        return None;
    }
    let key = if cluster.is_none() { unhex(&identity.key) } else { None };
    Some((identity.incarnation, key))
}

/// Reads the two lines at the start.
fn begin(path: &Path) -> Result<(Reader, Identity), Unusable> {
    let mut reader = Summed::new(BufReader::new(File::open(path)?));
    let line = line(&mut reader)?;
    let no_snapshot = || Unusable::Torn("it does not begin like one".to_owned());
    let version: u32 =
        line.strip_prefix(MAGIC).ok_or_else(no_snapshot)?.trim_end().parse().map_err(|_| no_snapshot())?;
    if version > VERSION {
        return Err(Unusable::Newer(version));
    }
    let identity = self::line(&mut reader)?;
    let identity = serde_json::from_str(&identity).map_err(|e| Unusable::Torn(format!("its head is no JSON: {e}")))?;
    Ok((reader, identity))
}

fn line(reader: &mut Reader) -> Result<String, Unusable> {
    let mut bytes = Vec::new();
    // byte by byte, so that no more is summed than is read; the lines are short
    let mut byte = [0];
    while bytes.last() != Some(&b'\n') {
        if bytes.len() as u64 >= LINE_BYTES_MAX {
            return Err(Unusable::Torn(format!("it has a first line of more than {LINE_BYTES_MAX} bytes")));
        }
        reader.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).map_err(|_| Unusable::Torn("its head is no text".to_owned()))
}

/// `None` at the end of the slices.
fn next_slice(reader: &mut Reader) -> Result<Option<Vec<u8>>, Unusable> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    match u32::from_le_bytes(length) as usize {
        0 => Ok(None),
        length if length > SLICE_BYTES_MAX => Err(Unusable::Torn(format!("it has a slice of {length} bytes"))),
        length => {
            let mut slice = Vec::new();
            // not what is claimed, but what is there
            if reader.take(length as u64).read_to_end(&mut slice)? < length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(Some(slice))
        }
    }
}

/// Writes a snapshot to `name` in `directory`: beside it first, in its place when all has reached the disk. Returns its
/// size and whether all slices are in it.
pub(super) fn write(
    directory: &Path,
    name: &str,
    identity: &Identity,
    slices: impl Iterator<Item = Vec<u8>>,
    bytes_max: u64,
) -> io::Result<(u64, bool)> {
    let beside = directory.join(format!("{name}.tmp"));
    let outcome = write_beside(&beside, identity, slices, bytes_max).and_then(|written| {
        fs::rename(&beside, directory.join(name))?;
        // the new name has to reach the disk as well
        File::open(directory)?.sync_all()?;
        Ok(written)
    });
    if outcome.is_err() {
        // makes room again; there may be nothing to remove
        let _ = fs::remove_file(&beside);
    }
    outcome
}

fn write_beside(
    path: &Path,
    identity: &Identity,
    slices: impl Iterator<Item = Vec<u8>>,
    bytes_max: u64,
) -> io::Result<(u64, bool)> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut writer = Summed::new(BufWriter::new(file));
    writeln!(writer, "{MAGIC}{VERSION}")?;
    writeln!(writer, "{}", serde_json::to_string(identity)?)?;
    let mut bytes = 2 * LINE_BYTES_MAX;
    let mut whole = true;
    for slice in slices {
        bytes += 4 + slice.len() as u64;
        if bytes > bytes_max {
            whole = false;
            break;
        }
        let length = u32::try_from(slice.len()).map_err(io::Error::other)?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(&slice)?;
    }
    writer.write_all(&0u32.to_le_bytes())?;
    let sum = writer.sum();
    let mut file = writer.inner;
    file.write_all(sum.as_ref())?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file.metadata()?.len(), whole))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}
