//! A round's news in chunks that each fit a frame. It must not know peers.

use std::sync::Arc;

use crate::entry::KeyId;
use crate::wire::{Packer, Update};

/// A tick's news, encoded once for all peers.
pub(super) struct Batch {
    bytes_max: usize,
    packer: Packer,
    keys: Vec<KeyId>,
    chunks: Vec<(Vec<u8>, Arc<[KeyId]>)>,
}

impl Batch {
    /// In chunks of at most `bytes_max`, as far as single updates fit.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, packer: Packer::default(), keys: Vec::new(), chunks: Vec::new() }
    }

    pub(super) fn push(&mut self, key: KeyId, update: &Update) {
        if !self.packer.push(update, self.bytes_max) {
            self.cut();
            self.packer.push(update, self.bytes_max);
        }
        self.keys.push(key);
    }

    fn cut(&mut self) {
        if !self.packer.is_empty() {
            let bytes = std::mem::take(&mut self.packer).finish();
            // in order, so that a link can tell quickly what one frame says again of another
            self.keys.sort_unstable();
            self.chunks.push((bytes, std::mem::take(&mut self.keys).into()));
        }
    }

    /// The chunks, and the keys in each.
    pub(super) fn finish(mut self) -> Vec<(Vec<u8>, Arc<[KeyId]>)> {
        self.cut();
        self.chunks
    }
}
