//! A world of its own for a daemon: its wall clock and what a name resolves to, both settable while it runs.
//!
//! By a library that the daemon loads before the C library (`world.c`, made with the C compiler that the build needs
//! anyway).

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::daemon::Setup;

/// The name that resolves to what the test says.
pub const SEED: &str = "seed.test";

pub struct World(TempDir);

impl World {
    pub fn new() -> Self {
        let world = Self(TempDir::new().unwrap());
        world.set_clock(0);
        world.set_seed("");
        world
    }

    /// A daemon in this world.
    pub fn of(&self, setup: Setup) -> Setup {
        let variables = vec![
            ("LD_PRELOAD".to_owned(), library().to_str().unwrap().to_owned()),
            ("WORLD".to_owned(), self.0.path().to_str().unwrap().to_owned()),
        ];
        Setup { variables, ..setup }
    }

    /// Its wall clock is off by so many seconds from now on.
    pub fn set_clock(&self, seconds: i64) {
        self.set("clock", &seconds.to_ne_bytes());
    }

    /// [`SEED`] has that IP address from now on; none where it is empty.
    pub fn set_seed(&self, address: &str) {
        let mut bytes = [0; 64];
        bytes[..address.len()].copy_from_slice(address.as_bytes());
        self.set(SEED, &bytes);
    }

    /// In place: the daemon has it mapped.
    fn set(&self, name: &str, bytes: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        let path = self.0.path().join(name);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }
}

/// Compiled once a run of the tests.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("world.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/world.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&path);
        let made = compiler.args([source, "-ldl"]).status().unwrap();
        assert!(made.success(), "cc world.c: {made}");
        (directory, path)
    });
    path
}
