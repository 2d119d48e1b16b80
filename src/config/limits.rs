//! `[[limit]]` and `[[limit.override]]`: from the file to core's limits, its errors put where they belong. It must not
//! know peers or listeners.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::slice;

use spillgate_core::limit::{
    Accuracy, Algorithm, Limit, LimitError, Limits, MAX_OVERSHOOT_DEFAULT, OnPartition, Origin, OverrideSpec, Reserve,
    Rule, RuleSpec,
};

use super::error::Place;
use super::overrides::{LIMIT_FLAG, Overrides};
use super::reader::Placed;
use super::section::Section;

/// Reads every limit; those of flags replace those of the file.
pub(super) fn read_limits(root: &Section<'_>, overrides: &Overrides) -> Limits {
    let mut limits = BTreeMap::new();
    let sections = root.tables("limit", "name");
    let names: Vec<_> = sections.iter().map(|s| s.text("name")).collect();
    report_repeated(&sections, &names, "name");
    for (section, name) in sections.iter().zip(&names) {
        if let Some(limit) = read_limit(section, name.as_ref()) {
            limits.insert(limit.rule().limit().to_owned(), limit);
        }
    }
    let mut by_flag = HashSet::new();
    for limit in &overrides.limits {
        let name = limit.rule().limit();
        if !by_flag.insert(name) {
            root.report(Place::Flag(LIMIT_FLAG), &format!("limit \"{name}\" is given twice: give each name once"));
        }
        limits.insert(name.to_owned(), limit.clone());
    }
    Limits::new(limits.into_values()).expect("a map's keys differ, and so do the names")
}

/// Reports every section whose value of `key` an earlier one has.
fn report_repeated(sections: &[Section<'_>], values: &[Option<Placed<&str>>], key: &str) {
    let mut first = HashMap::new();
    for (section, value) in sections.iter().zip(values) {
        let Some(Placed { value, place }) = value else { continue };
        if let Some(Place::Line(line)) = first.get(value) {
            section.report(*place, &format!("the {key} {value:?} stands already on line {line}: give each once"));
        }
        first.entry(*value).or_insert(*place);
    }
}

/// Reads all of a limit before it gives up, so that all that is wrong with it is reported at once.
fn read_limit(section: &Section<'_>, name: Option<&Placed<&str>>) -> Option<Limit> {
    let spec = read_rule(section);
    let sections = section.tables("override", "key");
    let keys: Vec<_> = sections.iter().map(|s| s.text("key")).collect();
    report_repeated(&sections, &keys, "key");
    let overrides: Vec<_> = sections.iter().zip(&keys).map(|(s, key)| read_override(s, key.as_ref())).collect();
    let (name, spec) = (name?.value, spec?);
    // by itself first: whatever an override is refused for is its own fault then
    if let Err(error) = Rule::new(name, Origin::Configured, spec.clone()) {
        section.report(section.place(key_at_fault(&error)), &error.to_string());
        return None;
    }
    for (section, one) in sections.iter().zip(&overrides) {
        if let Some(one) = one
            && let Err(error) = Limit::new(name, spec.clone(), slice::from_ref(one))
        {
            section.report(section.place(key_at_fault(&error)), &error.to_string());
        }
    }
    let overrides: Vec<_> = overrides.into_iter().collect::<Option<_>>()?;
    // an error of here has been reported above: each override by itself, and keys given twice
    Limit::new(name, spec, &overrides).ok()
}

fn read_rule(section: &Section<'_>) -> Option<RuleSpec> {
    let algorithm = word(section, "algorithm", ALGORITHMS, Algorithm::as_str).unwrap_or(Algorithm::TokenBucket);
    let rate = section.rate("rate");
    let burst = section.count("burst");
    let accuracy = read_accuracy(section);
    let confirm_wait = section.duration("confirm_wait");
    let on_partition = word(section, "on_partition", ON_PARTITIONS, OnPartition::as_str);
    let enforce = section.flag("enforce");
    let max_delay = section.duration("max_delay");
    let reserve = read_reserve(section);
    let mut spec = RuleSpec::new(algorithm, rate?.value);
    spec.burst = burst.map(|b| b.value);
    spec.accuracy = accuracy;
    spec.confirm_wait = confirm_wait.map_or(spec.confirm_wait, |t| t.value);
    spec.on_partition = on_partition.unwrap_or(spec.on_partition);
    spec.enforce = enforce.map_or(spec.enforce, |e| e.value);
    spec.max_delay = max_delay.map(|t| t.value);
    spec.reserve = reserve;
    Some(spec)
}

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::TokenBucket, Algorithm::LeakyBucket, Algorithm::FixedWindow, Algorithm::SlidingWindow];
const ON_PARTITIONS: [OnPartition; 3] = [OnPartition::Share, OnPartition::Continue, OnPartition::Deny];

/// The one of `all` that the file names, in core's own words.
fn word<T: Copy, const N: usize>(
    section: &Section<'_>,
    key: &str,
    all: [T; N],
    text: impl Fn(T) -> &'static str,
) -> Option<T> {
    let given = section.choice(key)?.value;
    all.into_iter().find(|one| text(*one) == given)
}

fn read_accuracy(section: &Section<'_>) -> Accuracy {
    let max_overshoot = section.fraction("max_overshoot");
    let bounded =
        Accuracy::Bounded { max_overshoot: max_overshoot.as_ref().map_or(MAX_OVERSHOOT_DEFAULT, |m| m.value) };
    let all = [Accuracy::Strict, bounded, Accuracy::Gossip];
    let accuracy = word(section, "accuracy", all, Accuracy::as_str).unwrap_or(bounded);
    if let (Some(max), false) = (max_overshoot, accuracy == bounded) {
        let text = format!(
            "max_overshoot has no meaning for accuracy = \"{}\": only \"bounded\" keeps such a bound",
            accuracy.as_str()
        );
        section.report(max.place, &text);
    }
    accuracy
}

fn read_reserve(section: &Section<'_>) -> Vec<Reserve> {
    let mut reserve = Vec::new();
    for (priority, part) in section.fractions("reserve").unwrap_or_default() {
        if priority == "normal" {
            section.report(part.place, "reserve.normal: requests of priority normal are never held back; name another");
        } else if !super::values::is_name(priority) {
            let allowed = super::keys::Kind::Name.expected();
            section.report(part.place, &format!("reserve: priority {priority:?} must be {allowed}"));
        } else {
            reserve.push(Reserve { priority: priority.to_owned(), fraction: part.value });
        }
    }
    reserve
}

fn read_override(section: &Section<'_>, key: Option<&Placed<&str>>) -> Option<OverrideSpec> {
    let (rate, burst) = (section.rate("rate"), section.count("burst"));
    if !section.has("rate") && !section.has("burst") {
        section.report(section.place("key"), "the override changes nothing: give it a rate, a burst or both");
    }
    let key = key?.value.to_owned();
    Some(OverrideSpec { key, rate: rate.map(|r| r.value), burst: burst.map(|b| b.value) })
}

/// The key whose value core refused.
const fn key_at_fault(error: &LimitError) -> &'static str {
    match error {
        LimitError::Name(_) | LimitError::Duplicate(_) => "name",
        LimitError::Burst(_) | LimitError::BurstOfWindow(..) => "burst",
        LimitError::DelayOfOther(_) => "max_delay",
        LimitError::MaxOvershoot(_) => "max_overshoot",
        LimitError::Reserve(..) => "reserve",
        LimitError::Pattern(_) | LimitError::DuplicatePattern(_) => "key",
    }
}
