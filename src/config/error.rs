//! What is wrong with a configuration, and where. It must not know which keys there are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How many problems one report shows; more than that seldom have causes of their own.
const SHOWN_MAX: usize = 10;

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error(
        "{}: cannot read the configuration file: {error}; name one that exists, or none for the defaults",
        path.display()
    )]
    Unreadable {
        /// As it was named.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It was read, and cannot be obeyed.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// Everything wrong with one configuration, in the order of its lines; one line of text a problem.
#[derive(Debug, thiserror::Error)]
pub struct Problems {
    file: Option<PathBuf>,
    all: Vec<Problem>,
}

/// One thing wrong: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    text: String,
}

/// Where a value was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// A flag, or the environment variable that stands for it.
    Flag(&'static str),
    /// Nowhere: it is a default, or it is missing.
    Unset,
}

impl Problem {
    pub(super) const fn new(place: Place, text: String) -> Self {
        Self { place, text }
    }

    /// The line of the file, from 1; none when a flag is at fault, or the lack of one.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match self.place {
            Place::Line(line) => Some(line),
            Place::Flag(_) | Place::Unset => None,
        }
    }

    /// The key, the value found and what is allowed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Problems {
    /// Puts `all` in the order of their lines; `file` is where those lines stand.
    pub(super) fn new(file: Option<&Path>, mut all: Vec<Problem>) -> Self {
        all.sort_by_key(|p| p.place);
        Self { file: file.map(Path::to_path_buf), all }
    }

    /// All of them, by line.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.all
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().map(Path::display);
        for (n, problem) in self.all.iter().take(SHOWN_MAX).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            match (problem.place, &file) {
                (Place::Line(line), Some(file)) => write!(f, "{file}:{line}: ")?,
                (Place::Line(line), None) => write!(f, "line {line}: ")?,
                (Place::Flag(flag), _) => write!(f, "{flag}: ")?,
                (Place::Unset, Some(file)) => write!(f, "{file}: ")?,
                (Place::Unset, None) => {}
            }
            f.write_str(&problem.text)?;
        }
        match self.all.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
