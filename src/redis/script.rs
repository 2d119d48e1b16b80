//! The scripts, what they are asked and what they answer. It must not know connections.

use redis::{Cmd, RedisError, Value};
use spillgate_core::central::{Brief, Used, Word};
use spillgate_core::decision::Check;
use spillgate_core::limit::{Algorithm, Origin};

/// One script: its text, and the hash by which Redis keeps it.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }

    /// The call by hash.
    pub(super) fn by_hash(&self, call: &Call) -> Cmd {
        call.command("EVALSHA", &self.hash)
    }

    /// The call with the script itself, which Redis then keeps.
    pub(super) fn in_full(&self, call: &Call) -> Cmd {
        call.command("EVAL", self.text)
    }
}

/// Keys and arguments of a script.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    keys: Vec<String>,
    arguments: Vec<String>,
}

/// Arguments of each key, and which of them is the cost.
const ARGUMENTS: usize = 14;
const COST: usize = 5;

impl Call {
    /// The same without asking for anything: it only tells.
    pub(super) fn of_nothing(mut self) -> Self {
        self.arguments.iter_mut().skip(COST).step_by(ARGUMENTS).for_each(|cost| "0".clone_into(cost));
        self
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// All scripts.
pub(super) struct Scripts {
    token_bucket: Script,
    leaky_bucket: Script,
    fixed_window: Script,
    sliding_window: Script,
    /// All algorithms in one, for several limits at once.
    several: Script,
    pub(super) presence: Script,
}

macro_rules! script {
    ($($algorithm:literal),+) => {
        Script::new(concat!(
            include_str!("scripts/shared.lua"),
            $(include_str!(concat!("scripts/", $algorithm, ".lua")),)+
            include_str!("scripts/decide.lua")
        ))
    };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            token_bucket: script!("token_bucket"),
            leaky_bucket: script!("leaky_bucket"),
            fixed_window: script!("fixed_window"),
            sliding_window: script!("sliding_window"),
            several: script!("token_bucket", "leaky_bucket", "fixed_window", "sliding_window"),
            presence: Script::new(include_str!("scripts/presence.lua")),
        }
    }

    /// The script that decides these.
    pub(super) fn of(&self, briefs: &[Brief]) -> &Script {
        match briefs {
            [brief] => match brief.rule.algorithm() {
                Algorithm::TokenBucket => &self.token_bucket,
                Algorithm::LeakyBucket => &self.leaky_bucket,
                Algorithm::FixedWindow => &self.fixed_window,
                Algorithm::SlidingWindow => &self.sliding_window,
            },
            _ => &self.several,
        }
    }
}

/// A request's place in Redis: all limits of one key share a hash tag, so that they lie in one slot of a cluster.
pub(super) fn key(cluster: &str, check: &Check<'_>, brief: &Brief) -> String {
    let own = if brief.rule.origin() == Origin::Inline { "~" } else { "" };
    format!("spillgate:{cluster}:{{{}}}:{own}{}", escaped(check.key), brief.rule.limit())
}

/// Without what would end the hash tag early.
fn escaped(key: &str) -> String {
    key.replace('%', "%25").replace('{', "%7B").replace('}', "%7D")
}

/// What a script is to be told to decide `checks`.
pub(super) fn call(cluster: &str, checks: &[Check<'_>], briefs: &[Brief]) -> Call {
    let mut call = Call::default();
    for (check, brief) in checks.iter().zip(briefs) {
        call.keys.push(key(cluster, check, brief));
        call.arguments.extend(arguments(check.cost, brief));
    }
    call
}

/// The fields that decide.lua names, in its order.
fn arguments(cost: u64, brief: &Brief) -> [String; ARGUMENTS] {
    let rule = &brief.rule;
    let delay_max = rule.spec().max_delay.map_or(-1.0, |most| micros(most.0));
    let (used, window, before) = match brief.known {
        Used::Bucket(used) => (used.to_string(), 0, 0),
        Used::Window { number, current, previous } => (current.to_string(), number, previous),
    };
    let flag = |on: bool| u8::from(on).to_string();
    [
        rule.algorithm().as_str().to_owned(),
        rule.rate().tokens().to_string(),
        micros(rule.rate().period().0).to_string(),
        rule.capacity().to_string(),
        delay_max.to_string(),
        cost.to_string(),
        brief.reserved.to_string(),
        flag(rule.spec().enforce),
        flag(brief.first),
        window.to_string(),
        used,
        before.to_string(),
        brief.owed.to_string(),
        brief.owed_before.to_string(),
    ]
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// What says who is there.
pub(super) fn presence_call(cluster: &str, node: &str, word: &str) -> Call {
    Call { keys: vec![format!("spillgate:{cluster}:nodes")], arguments: vec![node.to_owned(), word.to_owned()] }
}

/// The words on `briefs`, in their order; `None` where the reply is not of our script.
pub(super) fn words(briefs: &[Brief], reply: Value) -> Option<Vec<Word>> {
    let parts: Vec<String> = redis::from_redis_value(reply).ok()?;
    let (time, rest) = parts.split_first()?;
    let wall = (time.parse::<f64>().ok()? * 1e3) as u64;
    if rest.len() != briefs.len() * 5 {
        return None;
    }
    let word = |(brief, parts): (&Brief, &[String])| {
        let whole = |text: &str| text.parse::<f64>().ok().map(|n| n as u64);
        let used = if brief.rule.algorithm().windowed() {
            Used::Window { number: whole(&parts[2])?, current: whole(&parts[3])?, previous: whole(&parts[4])? }
        } else {
            Used::Bucket(parts[1].parse().ok()?)
        };
        Some(Word { granted: parts[0] == "1", used, wall })
    };
    briefs.iter().zip(rest.chunks(5)).map(word).collect()
}

/// Who said what, and how many microseconds ago.
pub(super) fn presences(reply: Value) -> Result<Vec<(String, String, u64)>, RedisError> {
    let parts: Vec<String> = redis::from_redis_value(reply)?;
    let told = |three: &[String]| Some((three[0].clone(), three[1].clone(), three[2].parse().ok()?));
    Ok(parts.chunks_exact(3).filter_map(told).collect())
}
