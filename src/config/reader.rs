//! A TOML document, its lines, and the problems found in it so far. It must not know any key by name, nor what keys
//! take.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::error::{Place, Problem};
use super::keys::Key;
use super::section::Section;
use super::wording::shorten;

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub value: T,
    pub place: Place,
}

impl<T> Placed<T> {
    pub const fn by_flag(value: T, flag: &'static str) -> Self {
        Self { value, place: Place::Flag(flag) }
    }

    pub const fn by_default(value: T) -> Self {
        Self { value, place: Place::Unset }
    }
}

/// A document on the way to a configuration, and the problems so far.
pub(super) struct Reader<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    /// Relative paths start here.
    directory: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    /// Of `text`, whose relative paths start at `directory`.
    pub fn new(text: &'a str, directory: &Path) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts, directory: directory.to_path_buf(), problems: RefCell::default() }
    }

    /// The document as a table.
    ///
    /// # Errors
    /// Where it stops to be TOML: the only problem then, since all others would follow from it.
    pub fn parse(&self) -> Result<DeTable<'a>, Problem> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let first = errors.into_iter().min_by_key(|error| error.span().unwrap_or_default().start);
        let Some(error) = first else { return Ok(table.into_inner()) };
        let span = error.span().unwrap_or_default();
        let found = self.excerpt(span.clone());
        let near = if found.is_empty() { String::new() } else { format!(" at {found}") };
        let text = format!("not TOML: {}{near}", error.message().trim());
        Err(Problem::new(Place::Line(self.line(span.start)), text))
    }

    /// Opens the document's own table.
    pub fn root(&'a self, keys: &'static [Key], values: &'a DeTable<'a>) -> Section<'a> {
        Section::open(self, String::new(), keys, values, 1)
    }

    /// A path of the document, from the root or from where the process stands.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Notes a problem.
    pub fn report(&self, place: Place, text: String) {
        self.problems.borrow_mut().push(Problem::new(place, text));
    }

    /// All problems so far.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// The line, from 1, of the byte at `at`.
    pub fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).max(1)
    }

    /// The beginning of what stands there, fit for a message of one line.
    pub fn excerpt(&self, span: Range<usize>) -> String {
        shorten(self.text.get(span).unwrap_or_default().lines().next().unwrap_or_default())
    }
}
