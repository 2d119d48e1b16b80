//! Reads values of the kinds that keys take out of one table, and notes what is wrong with them, each at its line. It
//! must not know any key by name.

use std::net::SocketAddr;
use std::path::PathBuf;

use spillgate_core::rate::{Rate, parse_duration};
use spillgate_core::time::Nanos;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Place;
use super::keys::{Key, Kind};
use super::reader::{Placed, Reader};
use super::values::{checked_seed, fraction, is_name};
use super::wording::{nearest, shorten};

/// One table of the document; one that is absent has no values.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    /// Leads from the document to this table in messages: `cluster.`, `limit "api": `.
    prefix: String,
    keys: &'static [Key],
    values: Option<&'a DeTable<'a>>,
    /// Of its header.
    line: usize,
}

/// Why a value was refused: by its kind, or for the reason given.
type Refusal = Option<String>;

impl<'a> Section<'a> {
    /// Opens a table whose header is on `line`, and reports every key in it that is not among `keys`.
    pub fn open(
        reader: &'a Reader<'a>,
        prefix: String,
        keys: &'static [Key],
        values: &'a DeTable<'a>,
        line: usize,
    ) -> Self {
        let section = Section { reader, prefix, keys, values: Some(values), line };
        section.report_unknown(values);
        section
    }

    fn report_unknown(&self, values: &DeTable<'_>) {
        for key in values.keys() {
            let name: &str = key.get_ref();
            if self.keys.iter().any(|k| k.name == name) {
                continue;
            }
            let known = || self.keys.iter().map(|k| k.name);
            let elsewhere: Vec<_> = super::keys::ROOT.iter().filter(|k| k.contains(name)).map(|k| k.name).collect();
            let hint = match (nearest(name, known()), elsewhere.is_empty()) {
                (Some(near), _) => format!("did you mean \"{near}\"?"),
                (None, false) => format!("it belongs under [{}]", elsewhere.join("] or [")),
                (None, true) => format!("known here: {}", known().collect::<Vec<_>>().join(", ")),
            };
            let text = format!("{}{} is not a known key; {hint}", self.prefix, shorten(name));
            self.reader.report(Place::Line(self.reader.line(key.span().start)), text);
        }
    }

    fn find(&self, name: &str) -> Option<(&'static Key, &'a Spanned<DeValue<'a>>)> {
        let key = self.keys.iter().find(|k| k.name == name)?;
        let Some(value) = self.values.and_then(|v| v.get(name)) else {
            if key.required && self.values.is_some() {
                let text = format!("{}{name} is missing; it must be {}", self.prefix, key.kind.expected());
                self.reader.report(Place::Line(self.line), text);
            }
            return None;
        };
        Some((key, value))
    }

    fn read<T>(
        &self,
        name: &str,
        convert: impl FnOnce(Kind, &'a DeValue<'a>) -> Result<T, Refusal>,
    ) -> Option<Placed<T>> {
        let (key, value) = self.find(name)?;
        let place = Place::Line(self.reader.line(value.span().start));
        match convert(key.kind, value.get_ref()) {
            Ok(value) => Some(Placed { value, place }),
            Err(refusal) => {
                let text = refusal.unwrap_or_else(|| {
                    let found = self.reader.excerpt(value.span());
                    format!("{name} {found} must be {}", key.kind.expected())
                });
                self.reader.report(place, format!("{}{text}", self.prefix));
                None
            }
        }
    }

    /// Whether the document has this table at all.
    pub const fn is_present(&self) -> bool {
        self.values.is_some()
    }

    /// Whether `name` was given, well or not.
    pub fn has(&self, name: &str) -> bool {
        self.values.is_some_and(|v| v.contains_key(name))
    }

    /// Where `name` was given, or else where the table begins.
    pub fn place(&self, name: &str) -> Place {
        match self.values {
            None => Place::Unset,
            Some(values) => {
                let at = values.get(name).map(|v| self.reader.line(v.span().start));
                Place::Line(at.unwrap_or(self.line))
            }
        }
    }

    /// The way from the document to `name`, as messages show it.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Notes a problem of this table at `place`.
    pub fn report(&self, place: Place, text: &str) {
        self.reader.report(place, format!("{}{text}", self.prefix));
    }

    /// Text of any kind.
    pub fn text(&self, name: &str) -> Option<Placed<&'a str>> {
        self.read(name, |_, v| v.as_str().ok_or(None))
    }

    /// The name of a node or a cluster.
    pub fn name(&self, name: &str) -> Option<Placed<String>> {
        self.read(name, |_, v| v.as_str().filter(|n| is_name(n)).map(str::to_owned).ok_or(None))
    }

    /// A path, from the root or from where the process stands.
    pub fn path(&self, name: &str) -> Option<Placed<PathBuf>> {
        self.read(name, |_, v| v.as_str().filter(|p| !p.is_empty()).map(|p| self.reader.resolve(p)).ok_or(None))
    }

    /// An IP address and a port.
    pub fn address(&self, name: &str) -> Option<Placed<SocketAddr>> {
        self.read(name, |_, v| v.as_str().and_then(|a| a.parse().ok()).ok_or(None))
    }

    /// Hosts with ports.
    pub fn seeds(&self, name: &str) -> Option<Placed<Vec<String>>> {
        let items = self.read(name, |_, v| v.as_array().ok_or(None))?;
        let mut seeds = Vec::new();
        for item in items.value {
            match item.get_ref().as_str().map(checked_seed) {
                Some(Ok(seed)) => seeds.push(seed),
                _ => {
                    let found = self.reader.excerpt(item.span());
                    let text = format!("{name} item {found} must be a host and a port like \"10.0.0.1:8471\"");
                    self.report(Place::Line(self.reader.line(item.span().start)), &text);
                }
            }
        }
        Some(Placed { value: seeds, place: items.place })
    }

    /// A duration within its range.
    pub fn duration(&self, name: &str) -> Option<Placed<Nanos>> {
        self.read(name, |kind, v| {
            let Kind::Duration { least, most } = kind else { return Err(None) };
            let time = parse_duration(v.as_str().ok_or(None)?).map_err(|_| None)?;
            (least..=most).contains(&time).then_some(time).ok_or(None)
        })
    }

    /// Tokens a period.
    pub fn rate(&self, name: &str) -> Option<Placed<Rate>> {
        self.read(name, |_, v| v.as_str().ok_or(None)?.parse::<Rate>().map_err(|e| Some(e.to_string())))
    }

    /// A whole number within its range.
    pub fn count(&self, name: &str) -> Option<Placed<u64>> {
        self.read(name, |kind, v| {
            let (Kind::Count { least, most }, DeValue::Integer(n)) = (kind, v) else { return Err(None) };
            let n = u64::from_str_radix(n.as_str(), n.radix()).map_err(|_| None)?;
            (least..=most).contains(&n).then_some(n).ok_or(None)
        })
    }

    /// A part of a whole.
    pub fn fraction(&self, name: &str) -> Option<Placed<f64>> {
        self.read(name, |kind, v| {
            let Kind::Fraction { above_zero } = kind else { return Err(None) };
            fraction(v).filter(|part| !above_zero || *part > 0.0).ok_or(None)
        })
    }

    /// Yes or no.
    pub fn flag(&self, name: &str) -> Option<Placed<bool>> {
        self.read(name, |_, v| v.as_bool().ok_or(None))
    }

    /// One of the words that the key allows.
    pub fn choice(&self, name: &str) -> Option<Placed<&'static str>> {
        self.read(name, |kind, v| {
            let (Kind::Choice(words), Some(text)) = (kind, v.as_str()) else { return Err(None) };
            words.iter().copied().find(|w| *w == text).ok_or_else(|| {
                let near = nearest(text, words.iter().copied())?;
                let text = shorten(text);
                Some(format!("{name} \"{text}\" must be {}; did you mean \"{near}\"?", kind.expected()))
            })
        })
    }

    /// Parts of a whole by name, each with its place.
    pub fn fractions(&self, name: &str) -> Option<Vec<(&'a str, Placed<f64>)>> {
        let table = self.read(name, |_, v| v.as_table().ok_or(None))?.value;
        let mut parts = Vec::new();
        for (key, value) in table {
            let place = Place::Line(self.reader.line(value.span().start));
            match fraction(value.get_ref()) {
                Some(value) => parts.push((key.get_ref().as_ref(), Placed { value, place })),
                None => {
                    let (key, found) = (shorten(key.get_ref()), self.reader.excerpt(value.span()));
                    let allowed = Kind::Fraction { above_zero: false }.expected();
                    self.report(place, &format!("{name}.{key} {found} must be {allowed}"));
                }
            }
        }
        Some(parts)
    }

    /// A table below this one; empty when absent.
    pub fn table(&self, name: &str) -> Section<'a> {
        let prefix = format!("{}{name}.", self.prefix);
        let found = self.read(name, |kind, v| match (kind, v) {
            (Kind::Table(keys), DeValue::Table(values)) => Ok((keys, values)),
            (Kind::Table(_), DeValue::Array(_)) => {
                Err(Some(format!("[[{name}]] can stand only once; its header must be [{}{name}]", self.prefix)))
            }
            _ => Err(None),
        });
        match (found, self.place(name)) {
            (Some(Placed { value: (keys, values), place: Place::Line(line) }), _) => {
                Self::open(self.reader, prefix, keys, values, line)
            }
            (_, place) => {
                let line = if let Place::Line(line) = place { line } else { self.line };
                Section { reader: self.reader, prefix, keys: &[], values: None, line }
            }
        }
    }

    /// An array of tables below this one; `prefix` says how messages lead to each, from its number and its value of
    /// `named_by`.
    pub fn tables(&self, name: &str, named_by: &str) -> Vec<Section<'a>> {
        let header = format!("[[{}]]", if self.prefix.is_empty() { name.to_owned() } else { format!("limit.{name}") });
        let tables = self.read(name, |kind, v| {
            let Kind::Tables(keys) = kind else { return Err(None) };
            let wrong = || Some(format!("{name} can stand more than once; its header must be {header}"));
            let items = v.as_array().ok_or_else(wrong)?;
            let items: Option<Vec<_>> =
                items.iter().map(|i| i.get_ref().as_table().map(|t| (t, i.span().start))).collect();
            Ok((keys, items.ok_or_else(wrong)?))
        });
        let Some(Placed { value: (keys, items), .. }) = tables else { return Vec::new() };
        let open = |(n, (values, at)): (usize, (&'a DeTable<'a>, usize))| {
            let own = values.get(named_by).and_then(|v| v.get_ref().as_str()).map(shorten);
            let own = own.map_or_else(|| format!("#{}", n + 1), |own| format!("\"{own}\""));
            let parent = self.prefix.trim_end_matches(": ");
            let prefix = format!("{parent}{}{name} {own}: ", if parent.is_empty() { "" } else { " " });
            Self::open(self.reader, prefix, keys, values, self.reader.line(at))
        };
        items.into_iter().enumerate().map(open).collect()
    }
}

impl Key {
    /// Whether it is a table that has a key of that name.
    fn contains(&self, name: &str) -> bool {
        matches!(self.kind, Kind::Table(keys) | Kind::Tables(keys) if keys.iter().any(|k| k.name == name))
    }
}
