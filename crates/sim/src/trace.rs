//! A run as a trace: the hash that tells two runs apart, and every decision as a line of CSV. It must not know what is
//! measured.

use std::io::{self, Write};

use crate::observe::{Decided, Observation, Observer};
use crate::scenario::Scenario;

/// A hash of all that is decided and sent in a run. Equal seeds give equal hashes, on any machine and in any profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl TraceHash {
    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// FNV-1a over words instead of bytes, folded so that high bits reach the low ones.
    pub(crate) const fn word(&mut self, word: u64) {
        let hash = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 = hash ^ (hash >> 29);
    }

    /// Takes in what was seen, where it tells runs apart.
    pub fn note(&mut self, seen: &Observation<'_>) {
        match seen {
            Observation::Decided(Decided { at, request, verdict }) => {
                self.word(at.0);
                self.word(request.id);
                self.word((request.node as u64) << 32 | u64::from(request.key));
                self.word(request.cost << 8 | (verdict.reason as u64) << 1 | u64::from(verdict.allowed));
            }
            Observation::Sent { at, from, to, bytes, fate, .. } => {
                self.word(at.0);
                self.word((*from as u64) << 40 | (*to as u64) << 24 | (*bytes as u64) << 4 | *fate as u64);
            }
            _ => {}
        }
    }
}

/// Writes every decision as `time_ns,node,limit,key,cost,allowed,reason`.
pub struct TraceWriter<'s, W: Write> {
    scenario: &'s Scenario,
    out: W,
    failed: Option<io::Error>,
}

impl<'s, W: Write> TraceWriter<'s, W> {
    /// Begins with the line that names the columns. `out` is best buffered.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(scenario: &'s Scenario, mut out: W) -> io::Result<Self> {
        out.write_all(b"time_ns,node,limit,key,cost,allowed,reason\n")?;
        Ok(Self { scenario, out, failed: None })
    }

    /// Writes what is left, and says whether all went well.
    ///
    /// # Errors
    /// The first of `out`.
    pub fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    fn write(&mut self, Decided { at, request, verdict }: &Decided) -> io::Result<()> {
        let scenario = self.scenario;
        let (node, key) = (scenario.nodes.name(request.node), scenario.keys.text(request.key));
        let limit = scenario.limits.get(request.limit).map_or("", |l| l.name());
        // a key may hold a comma or a quote
        let quoted = key.contains([',', '"', '\n', '\r']).then(|| format!("\"{}\"", key.replace('"', "\"\"")));
        let (key, reason) = (quoted.as_deref().unwrap_or(key), verdict.reason.as_str());
        writeln!(self.out, "{},{node},{limit},{key},{},{},{reason}", at.0, request.cost, verdict.allowed)
    }
}

impl<W: Write> Observer for TraceWriter<'_, W> {
    fn observe(&mut self, seen: &Observation<'_>) {
        if let (Observation::Decided(decided), None) = (seen, &self.failed) {
            self.failed = self.write(decided).err();
        }
    }
}
