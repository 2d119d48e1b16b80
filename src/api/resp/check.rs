//! The three commands that check: their arguments, and their answers. It must not know the protocol's bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use spillgate_core::decision::{Decision, Reason};
use spillgate_core::limit::{Algorithm, COST_MAX, Origin, Rule, RuleSpec};
use spillgate_core::rate::Rate;
use spillgate_core::time::Nanos;

use super::reply::Reply;
use super::wire::Args;
use crate::api::ask::{can_never_be, refuse_mistake};
use crate::api::problem::{Kind, Problem};
use crate::api::request::{Limit, WAIT_MS_MAX, Wanted};

/// Rules of callers that are kept for all connections: as a rule a program has a handful.
const RULES_MAX: usize = 1024;

/// A command that checks; in the order of [`super::counts::COMMANDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// `CL.THROTTLE`, as redis-cell has it.
    Cell,
    /// `THROTTLE`, as throttlecrab has it.
    Crab,
    /// `SPILLGATE.CHECK`, under a configured limit.
    Check,
}

impl Form {
    /// What to send, for errors.
    pub const fn usage(self) -> &'static str {
        match self {
            Self::Cell => "CL.THROTTLE key max_burst count period [quantity]",
            Self::Crab => "THROTTLE key max_burst count period [quantity]",
            Self::Check => "SPILLGATE.CHECK limit key [cost] [WAIT ms] [PRIORITY name]",
        }
    }

    /// The limit under which callers' own rules are counted: a key is one whatever rule comes with it.
    const fn limit(self) -> &'static str {
        match self {
            Self::Cell => "cl.throttle",
            Self::Crab | Self::Check => "throttle",
        }
    }

    /// What a `max_burst` makes of the capacity: redis-cell grants one more than it says, throttlecrab does not.
    const fn capacity(self, max_burst: u64) -> u64 {
        match self {
            Self::Cell => max_burst.saturating_add(1),
            Self::Crab | Self::Check => max_burst,
        }
    }
}

/// What tells one caller's rule from another: command, burst, count and period.
type RuleKey = (Form, u64, u64, u64);

/// Rules that callers have brought, so that all of one kind are one: made once, and compared by their address.
#[derive(Debug, Default)]
pub struct Rules(RwLock<HashMap<RuleKey, Arc<Rule>>>);

impl Rules {
    fn find(&self, key: RuleKey) -> Result<Arc<Rule>, Problem> {
        if let Some(rule) = self.0.read().get(&key) {
            return Ok(Arc::clone(rule));
        }
        let rule = Arc::new(rule(key)?);
        let mut rules = self.0.write();
        if rules.len() >= RULES_MAX {
            rules.clear();
        }
        Ok(Arc::clone(rules.entry(key).or_insert(rule)))
    }
}

fn rule((form, max_burst, count, period): RuleKey) -> Result<Rule, Problem> {
    let invalid = |e: &dyn fmt::Display| Problem::new(Kind::InvalidValue, format!("{e}; send {}", form.usage()));
    let rate = Rate::new(count, Nanos::from_secs(period)).map_err(|e| invalid(&e))?;
    let mut spec = RuleSpec::new(Algorithm::TokenBucket, rate);
    spec.burst = Some(form.capacity(max_burst));
    Rule::new(form.limit(), Origin::Inline, spec).map_err(|e| invalid(&e))
}

/// The rules with the one that this connection used last at hand.
#[derive(Debug)]
pub struct RecentRule {
    rules: Arc<Rules>,
    last: Option<(RuleKey, Arc<Rule>)>,
}

impl RecentRule {
    pub fn new(rules: Arc<Rules>) -> Self {
        Self { rules, last: None }
    }

    fn find(&mut self, key: RuleKey) -> Result<Arc<Rule>, Problem> {
        if let Some((last, rule)) = &self.last
            && *last == key
        {
            return Ok(Arc::clone(rule));
        }
        let rule = self.rules.find(key)?;
        self.last = Some((key, Arc::clone(&rule)));
        Ok(rule)
    }
}

/// What the command `form` asks for; its arguments stand in `bytes`.
///
/// # Errors
/// A [`Problem`] that names the argument and the value.
pub fn wanted<'a>(form: Form, args: &Args, bytes: &'a [u8], rules: &mut RecentRule) -> Result<Wanted<'a>, Problem> {
    match form {
        Form::Cell | Form::Crab => throttle(form, args, bytes, rules),
        Form::Check => check(args, bytes),
    }
}

fn throttle<'a>(form: Form, args: &Args, bytes: &'a [u8], rules: &mut RecentRule) -> Result<Wanted<'a>, Problem> {
    if !(5..=6).contains(&args.len()) {
        return Err(arity(form));
    }
    let number = |index, name| whole(args.of(bytes, index), name, u64::MAX, form);
    let key = (form, number(2, "max_burst")?, number(3, "count")?, number(4, "period")?);
    let cost = if args.len() == 6 { whole(args.of(bytes, 5), "quantity", COST_MAX, form)? } else { 1 };
    Ok(Wanted {
        limit: Limit::Inline(rules.find(key)?),
        key: Cow::Borrowed(text(args.of(bytes, 1), "key", form)?),
        cost,
        wait: Nanos::ZERO,
        priority: Cow::Borrowed("normal"),
    })
}

fn check<'a>(args: &Args, bytes: &'a [u8]) -> Result<Wanted<'a>, Problem> {
    let form = Form::Check;
    if args.len() < 3 {
        return Err(arity(form));
    }
    let mut wanted = Wanted {
        limit: Limit::Named(Cow::Borrowed(text(args.of(bytes, 1), "limit", form)?)),
        key: Cow::Borrowed(text(args.of(bytes, 2), "key", form)?),
        cost: 1,
        wait: Nanos::ZERO,
        priority: Cow::Borrowed("normal"),
    };
    let mut next = 3;
    // an option's name is no number, so a cost that is meant to be one is not taken for an option
    if args.len() > next && !is_option(args.of(bytes, next)) {
        wanted.cost = whole(args.of(bytes, next), "cost", COST_MAX, form)?;
        next += 1;
    }
    while next < args.len() {
        let (option, value) = (args.of(bytes, next), args.of(bytes, next + 1));
        if next + 1 == args.len() || !is_option(option) {
            return Err(malformed(format!("{} has no meaning there", shown(option)), form));
        }
        if option.eq_ignore_ascii_case(b"wait") {
            wanted.wait = Nanos::from_millis(whole(value, "WAIT", WAIT_MS_MAX, form)?);
        } else {
            wanted.priority = Cow::Borrowed(text(value, "PRIORITY", form)?);
        }
        next += 2;
    }
    Ok(wanted)
}

fn is_option(arg: &[u8]) -> bool {
    arg.eq_ignore_ascii_case(b"wait") || arg.eq_ignore_ascii_case(b"priority")
}

fn malformed(what: impl fmt::Display, form: Form) -> Problem {
    Problem::new(Kind::Malformed, format!("{what}; send {}", form.usage()))
}

fn arity(form: Form) -> Problem {
    malformed("wrong number of arguments", form)
}

fn shown(arg: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(arg).chars().take(64).collect();
    format!("{text:?}")
}

fn text<'a>(arg: &'a [u8], name: &str, form: Form) -> Result<&'a str, Problem> {
    std::str::from_utf8(arg).map_err(|_| malformed(format!("{name} {} is not UTF-8", shown(arg)), form))
}

fn whole(arg: &[u8], name: &str, max: u64, form: Form) -> Result<u64, Problem> {
    let number = std::str::from_utf8(arg).ok().and_then(|t| t.parse::<u64>().ok()).filter(|n| *n <= max);
    number.ok_or_else(|| {
        let detail = format!("{name} {} must be a whole number from 0 to {max}; send {}", shown(arg), form.usage());
        Problem::new(Kind::InvalidValue, detail)
    })
}

/// Writes the answer to a check in the form of its command.
pub fn answer(form: Form, wanted: &Wanted<'_>, decided: &Result<Decision, Problem>, reply: &mut Reply<'_>) {
    match (form, decided) {
        (_, Err(problem)) => error(problem, reply),
        (Form::Cell, Ok(decision)) => cell(decision, reply),
        (Form::Crab, Ok(decision)) => crab(decision, reply),
        (Form::Check, Ok(decision)) => match refuse_mistake(wanted.limit.as_ref().name(), decision) {
            Ok(()) => own(wanted, decision, reply),
            Err(problem) => error(&problem, reply),
        },
    }
}

/// Writes a problem as an error.
pub fn error(problem: &Problem, reply: &mut Reply<'_>) {
    let code = match problem.kind {
        Kind::Draining => "DRAINING",
        Kind::Overloaded => "OVERLOADED",
        _ => "ERR",
    };
    reply.error(code, &problem.detail);
}

/// 0 for allowed or 1, limit, remaining, seconds until it is worth asking again (-1: it was allowed, or never), seconds
/// until all is there.
fn cell(decision: &Decision, reply: &mut Reply<'_>) {
    reply.array(5);
    reply.number(i64::from(!decision.allowed));
    reply.unsigned(decision.capacity);
    reply.unsigned(decision.remaining);
    if decision.allowed || can_never_be(decision) {
        reply.number(-1);
    } else {
        reply.unsigned(decision.retry_after.as_secs_ceil().max(1));
    }
    reply.unsigned(decision.reset_after.as_secs_ceil());
}

/// 1 for allowed or 0, limit, remaining, seconds until all is there, seconds until it is worth asking again (0: it was
/// allowed).
fn crab(decision: &Decision, reply: &mut Reply<'_>) {
    reply.array(5);
    reply.number(i64::from(decision.allowed));
    reply.unsigned(decision.capacity);
    reply.unsigned(decision.remaining);
    reply.unsigned(decision.reset_after.as_secs_ceil());
    reply.unsigned(if decision.allowed { 0 } else { decision.retry_after.as_secs_ceil().max(1) });
}

/// The members of the HTTP API's answer, by their names and in their order.
fn own(wanted: &Wanted<'_>, decision: &Decision, reply: &mut Reply<'_>) {
    reply.map(10);
    reply.bulk("allowed");
    reply.flag(decision.allowed);
    reply.bulk("limit");
    reply.bulk(wanted.limit.as_ref().name());
    reply.bulk("key");
    reply.bulk(wanted.key.as_bytes());
    let retry_after = if decision.allowed { 0 } else { decision.retry_after.as_millis_ceil().max(1) };
    for (name, number) in [
        ("cost", decision.cost),
        ("capacity", decision.capacity),
        ("remaining", decision.remaining),
        ("retry_after_ms", retry_after),
        ("reset_after_ms", decision.reset_after.as_millis_ceil()),
        ("delay_ms", decision.delay.as_millis_ceil()),
    ] {
        reply.bulk(name);
        reply.unsigned(number);
    }
    reply.bulk("reason");
    match decision.reason.map(Reason::as_str) {
        Some(reason) => reply.bulk(reason),
        None => reply.null(),
    }
}
