//! One client's session: which commands it may send, what is known of it, and each command's answer. It must not know
//! sockets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use spillgate_core::decision::Decision;
use tokio::sync::OwnedSemaphorePermit;

use super::check::{self, Form, RecentRule};
use super::counts::BatchCounts;
use super::reply::Reply;
use super::wire::Args;
use super::{Resp, about};
use crate::api::request::Wanted;
use crate::driver::worth_holding;

/// The longest name that a client gives itself, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longer than the longest command's name.
const COMMAND_NAME_MAX: usize = 16;

/// What is to be done after a command.
#[derive(Debug)]
pub enum Then {
    /// Go on: it is answered.
    Next,
    /// It is not answered yet: a refusal that may become a grant, or another than this node is to decide.
    Hold(Waiting),
    /// Send what is answered, and end.
    Close,
}

/// A check whose answer is held.
#[derive(Debug)]
pub struct Waiting {
    /// What it asks for.
    pub wanted: Wanted<'static>,
    /// Its command.
    pub form: Form,
    /// The last decision on it; `None`: there is none yet.
    pub decision: Option<Decision>,
    /// Whether its answer is to be of RESP3.
    pub three: bool,
    /// How many bytes of answers come before it.
    pub at: usize,
    /// Held answers count among those that a node gives at once.
    pub _slot: OwnedSemaphorePermit,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    pub resp: Arc<Resp>,
    pub counts: BatchCounts,
    /// Which connection since the start.
    id: u64,
    rules: RecentRule,
    three: bool,
    known: bool,
    name: Vec<u8>,
}

impl Session {
    /// Of a client that has sent nothing yet.
    pub fn new(resp: Arc<Resp>) -> Self {
        let id = resp.counts.accepted.fetch_add(1, Relaxed) + 1;
        let rules = RecentRule::new(Arc::clone(&resp.rules));
        let known = resp.api.token.is_none();
        Self { counts: BatchCounts::default(), id, rules, three: false, known, name: Vec::new(), resp }
    }

    /// Runs the command whose arguments stand in `bytes`; its answer goes to `out`, unless it is to be held.
    pub fn run(&mut self, args: &Args, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        let mut name = [0; COMMAND_NAME_MAX];
        let given = args.of(bytes, 0);
        let name = match name.get_mut(..given.len()) {
            Some(name) => {
                name.copy_from_slice(given);
                name.make_ascii_uppercase();
                &*name
            }
            None => &[],
        };
        let form = match name {
            b"CL.THROTTLE" => Some(Form::Cell),
            b"THROTTLE" => Some(Form::Crab),
            b"SPILLGATE.CHECK" => Some(Form::Check),
            _ => None,
        };
        self.counts.commands[form.map_or(3, |f| f as usize)] += 1;
        let start = out.len();
        let then = match form {
            Some(form) if self.known => self.check(form, args, bytes, out),
            _ => self.other(name, args, bytes, out),
        };
        self.counts.errors += u64::from(out.get(start) == Some(&b'-'));
        then
    }

    fn check(&mut self, form: Form, args: &Args, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        let wanted = match check::wanted(form, args, bytes, &mut self.rules) {
            Ok(wanted) => wanted,
            Err(problem) => {
                check::error(&problem, &mut Reply::new(out, self.three));
                return Then::Next;
            }
        };
        let decided = match self.resp.api.check_now(&wanted) {
            Ok((Some(decision), _)) if !worth_holding(&decision, wanted.wait) => Ok(decision),
            Ok((decision, slot)) => {
                let (wanted, three, at) = (wanted.into_owned(), self.three, out.len());
                return Then::Hold(Waiting { wanted, form, decision, three, at, _slot: slot });
            }
            Err(problem) => Err(problem),
        };
        check::answer(form, &wanted, &decided, &mut Reply::new(out, self.three));
        Then::Next
    }

    fn other(&mut self, name: &[u8], args: &Args, bytes: &[u8], out: &mut Vec<u8>) -> Then {
        let rest: Vec<&[u8]> = (1..args.len()).map(|i| args.of(bytes, i)).collect();
        // sets the version of the protocol, so that it writes by another than the one so far
        if name == b"HELLO" {
            self.hello(&rest, out);
            return Then::Next;
        }
        let mut reply = Reply::new(out, self.three);
        match (name, rest.as_slice()) {
            (b"QUIT", _) => {
                reply.simple("OK");
                return Then::Close;
            }
            (b"AUTH", [password] | [_, password]) => self.auth(password, &mut reply),
            (b"RESET", []) => {
                self.reset();
                reply.simple("RESET");
            }
            _ if !self.known => {
                reply.error("NOAUTH", "Authentication required; send AUTH with the text of the token file")
            }
            (b"PING", []) => reply.simple("PONG"),
            (b"PING" | b"ECHO", [message]) => reply.bulk(message),
            (b"SELECT", [b"0"]) => reply.simple("OK"),
            (b"SELECT", [_]) => reply.error("ERR", "DB index is out of range; there is only 0"),
            (b"INFO", _) => about::info(&self.resp, &mut reply),
            (b"COMMAND", args) => about::command(args, &mut reply),
            (b"CLIENT", [subcommand, args @ ..]) => self.client(subcommand, args, &mut reply),
            (b"CONFIG", [get, names @ ..]) if get.eq_ignore_ascii_case(b"get") => config(names, &mut reply),
            (b"AUTH" | b"RESET" | b"PING" | b"ECHO" | b"SELECT" | b"CLIENT" | b"CONFIG", _) => {
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                reply.error("ERR", format_args!("wrong number of arguments for '{name}' command"));
            }
            _ => unknown(args.of(bytes, 0), &mut reply),
        }
        Then::Next
    }

    fn reset(&mut self) {
        self.three = false;
        self.known = self.resp.api.token.is_none();
        self.name.clear();
    }

    fn auth(&mut self, password: &[u8], reply: &mut Reply<'_>) {
        match &self.resp.api.token {
            None => reply.error("ERR", "AUTH called without any token configured; set token_file of [http]"),
            Some(token) if token.is(password) => {
                self.known = true;
                reply.simple("OK");
            }
            Some(_) => {
                reply.error("WRONGPASS", "invalid username-password pair; the password is the token file's text")
            }
        }
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    fn hello(&mut self, args: &[&[u8]], out: &mut Vec<u8>) {
        let mut three = self.three;
        let mut rest = args;
        if let [version, more @ ..] = args {
            three = match *version {
                b"2" => false,
                b"3" => true,
                _ => {
                    return Reply::new(out, three).error("NOPROTO", "unsupported protocol version; 2 and 3 are spoken");
                }
            };
            rest = more;
        }
        let mut known = self.known;
        let mut name = None;
        while !rest.is_empty() {
            match rest {
                [word, _, password, more @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                    let right = self.resp.api.token.as_ref().is_none_or(|t| t.is(password));
                    if !right {
                        return Reply::new(out, self.three).error("WRONGPASS", "invalid username-password pair");
                    }
                    known = true;
                    rest = more;
                }
                [word, given, more @ ..] if word.eq_ignore_ascii_case(b"setname") => {
                    name = Some(*given);
                    rest = more;
                }
                _ => return Reply::new(out, self.three).error("ERR", "syntax error in HELLO"),
            }
        }
        if !known {
            let text = "Authentication required; send HELLO 3 AUTH default TOKEN";
            return Reply::new(out, self.three).error("NOAUTH", text);
        }
        if let Some(name) = name
            && !self.rename(name)
        {
            return Reply::new(out, self.three).error("ERR", NAME_ALLOWED);
        }
        (self.three, self.known) = (three, known);
        self.greet(&mut Reply::new(out, three));
    }

    fn greet(&self, reply: &mut Reply<'_>) {
        reply.map(7);
        for (name, value) in [("server", "spillgate"), ("version", env!("CARGO_PKG_VERSION"))] {
            reply.bulk(name);
            reply.bulk(value);
        }
        reply.bulk("proto");
        reply.number(if self.three { 3 } else { 2 });
        reply.bulk("id");
        reply.unsigned(self.id);
        for (name, value) in [("mode", "standalone"), ("role", "master")] {
            reply.bulk(name);
            reply.bulk(value);
        }
        reply.bulk("modules");
        reply.array(0);
    }

    fn rename(&mut self, name: &[u8]) -> bool {
        let fits = name.len() <= NAME_BYTES_MAX && name.iter().all(u8::is_ascii_graphic);
        if fits {
            name.clone_into(&mut self.name);
        }
        fits
    }

    fn client(&mut self, subcommand: &[u8], args: &[&[u8]], reply: &mut Reply<'_>) {
        match (subcommand.to_ascii_uppercase().as_slice(), args) {
            // what a library calls itself, and wishes that have no meaning where nothing is evicted or tracked
            (b"SETINFO", [_, _]) | (b"NO-EVICT" | b"NO-TOUCH", [_]) => reply.simple("OK"),
            (b"SETNAME", [name]) if self.rename(name) => reply.simple("OK"),
            (b"SETNAME", [_]) => reply.error("ERR", NAME_ALLOWED),
            (b"GETNAME", []) if self.name.is_empty() => reply.null(),
            (b"GETNAME", []) => reply.bulk(&self.name),
            (b"ID", []) => reply.unsigned(self.id),
            (b"INFO" | b"LIST", _) => {
                let (name, version) = (String::from_utf8_lossy(&self.name), if self.three { 3 } else { 2 });
                reply.bulk(format!("id={} name={name} db=0 resp={version}\n", self.id));
            }
            _ => reply.error("ERR", "unknown subcommand or wrong number of arguments for CLIENT"),
        }
    }
}

const NAME_ALLOWED: &str = "a client's name has at most 64 bytes, visible ASCII without spaces";

/// What benchmarks ask for to tell about the server they measure: nothing here is kept on a disk.
fn config(names: &[&[u8]], reply: &mut Reply<'_>) {
    let known = |name: &&[u8]| match name.to_ascii_lowercase().as_slice() {
        b"save" => Some(("save", "")),
        b"appendonly" => Some(("appendonly", "no")),
        _ => None,
    };
    let found: Vec<_> = names.iter().filter_map(known).collect();
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name);
        reply.bulk(value);
    }
}

fn unknown(name: &[u8], reply: &mut Reply<'_>) {
    let name: String = String::from_utf8_lossy(name).chars().take(64).collect();
    let known =
        "CL.THROTTLE, THROTTLE, SPILLGATE.CHECK, PING, ECHO, HELLO, AUTH, CLIENT, COMMAND, INFO, SELECT, RESET, QUIT";
    reply.error("ERR", format_args!("unknown command '{name}'; there are {known}"));
}
