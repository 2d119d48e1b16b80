//! Redis killed, paused and flushed, and the nodes cut off from one another, all under load: after each round every node
//! has counted every grant that a caller was given, once.
//!
//! `SPILLGATE_CHAOS_SEED` and `SPILLGATE_CHAOS_ROUNDS` choose another run; a failure prints both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use spillgate::demo::measure::Answer;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::accuracy::certain_overshoot;
use crate::daemon::{DEADLINE, Daemon, meet, until};
use crate::nodes::{all_see, meet_behind, spend};
use crate::redis::{check, mode, outcome};
use crate::redis_server::Redis;
use crate::relay::Relay;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Never used up, so that its level tells what was counted.
const ROOMY: u64 = 1_000_000;
/// Asked for more than it has all the while, so that what is granted beyond it shows: tokens a second, and at once.
const TIGHT: f64 = 100.0;
/// What `bounded` promises by default, of the burst.
const OVER_MAX: f64 = 0.05 * TIGHT;
const ROUNDS: u64 = 5;
/// No answer takes so long: what Redis does is waited for 20 ms, and the machine is busy.
const PROMPT: Duration = Duration::from_secs(5);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What callers were granted.
#[derive(Default)]
struct Granted {
    roomy: AtomicU64,
    tight: Mutex<Vec<Answer>>,
    slowest_us: AtomicU64,
    resting: AtomicBool,
    stopped: AtomicBool,
    asking: AtomicU64,
}

/// Asks a daemon for one token after the other.
async fn load(daemon: spillgate::client::Client, begun: Instant, granted: Arc<Granted>) {
    while !granted.stopped.load(Relaxed) {
        granted.asking.fetch_add(1, Relaxed);
        // looked at after that, so that who waits for nobody to ask waits for this one too
        if !granted.resting.load(Relaxed) {
            for limit in ["api", "tight"] {
                let sent = begun.elapsed();
                let body = json!({"limit": limit, "key": "k"});
                let answer = daemon.post("/v1/check", &body, Duration::from_secs(10)).await.unwrap();
                let answered = begun.elapsed();
                granted.slowest_us.fetch_max(u64::try_from((answered - sent).as_micros()).unwrap(), Relaxed);
                let allowed = answer["allowed"] == true;
                if limit == "api" {
                    granted.roomy.fetch_add(u64::from(allowed), Relaxed);
                } else if allowed {
                    granted.tight.lock().unwrap().push(Answer { node: 0, sent, answered, allowed });
                }
            }
        }
        granted.asking.fetch_sub(1, Relaxed);
        sleep(Duration::from_millis(5)).await;
    }
}

/// One round of faults, all mended at its end.
async fn round(chance: &mut StdRng, relay: &Relay, redis: &mut Redis) -> String {
    let split = match chance.random_range(0..3) {
        0 => "all apart",
        1 => "one apart",
        _ => "together",
    };
    if split != "together" {
        relay.split(&["a"], &["b", "c"]);
    }
    if split == "all apart" {
        relay.split(&["b"], &["c"]);
    }
    sleep(Duration::from_millis(chance.random_range(500..3000))).await;
    let fault = chance.random_range(0..5);
    let lasts = Duration::from_millis(chance.random_range(100..1500));
    let named = match fault {
        0 => {
            redis.kill().await;
            sleep(lasts).await;
            redis.start_again().await;
            "killed"
        }
        1 => {
            redis.signal("STOP");
            sleep(lasts).await;
            redis.signal("CONT");
            "stopped"
        }
        2 => {
            redis.ask::<()>(&["CLIENT", "PAUSE", &lasts.as_millis().to_string(), "ALL"]).await;
            sleep(lasts).await;
            "paused"
        }
        3 => {
            redis.ask::<()>(&["SCRIPT", "FLUSH"]).await;
            "scripts flushed"
        }
        _ => "left alone",
    };
    sleep(Duration::from_millis(chance.random_range(0..1500))).await;
    relay.heal();
    format!("{split}, Redis {named} for {lasts:?}")
}

async fn rest(granted: &Granted) {
    granted.resting.store(true, Relaxed);
    until("nobody asks", async || granted.asking.load(Relaxed) == 0).await;
}

/// Every node has counted what was granted: never less, and more only by what a split of others' tokens between two silent
/// peers is rounded by, a token a peer and round.
async fn all_have_counted(daemons: &[Daemon], granted: &Granted, rounds: u64, story: &str) {
    let left = (ROOMY - granted.roomy.load(Relaxed)) as f64;
    let slack = 2.0 * rounds as f64 + 0.5;
    for daemon in daemons {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let level = daemon.level("k").await;
            if level <= left + 0.5 && level >= left - slack {
                break;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{} has {level} left, it should be {left}; {story}", daemon.name);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn no_charge_is_lost_or_doubled_whatever_becomes_of_redis_and_the_network() {
    let seed = setting("SPILLGATE_CHAOS_SEED", 1);
    let rounds = setting("SPILLGATE_CHAOS_ROUNDS", ROUNDS);
    let mut chance = StdRng::seed_from_u64(seed);
    let mut redis = Redis::start().await;
    let mut relay = Relay::new(seed);
    let limits = format!(
        "[[limit]]\nname = \"api\"\nrate = \"1/h\"\nburst = {ROOMY}\n[[limit]]\nname = \"tight\"\nrate = \
         \"{TIGHT}/s\"\nburst = {TIGHT}\n{}",
        redis.section("")
    );
    let mut daemons = meet_behind(&mut relay, &NAMES, &limits).await;
    let granted = Arc::new(Granted::default());
    let begun = Instant::now();
    for daemon in &daemons {
        spend(daemon, "k", 5).await;
        granted.roomy.fetch_add(5, Relaxed);
        let sent = begun.elapsed();
        check(daemon, "tight", "k", 1).await;
        granted.tight.lock().unwrap().push(Answer { node: 0, sent, answered: begun.elapsed(), allowed: true });
    }
    all_see(&daemons, "k", (ROOMY - 15) as f64).await;
    let mut callers = JoinSet::new();
    for daemon in daemons.iter().chain(&daemons) {
        callers.spawn(load(daemon.client(), begun, granted.clone()));
    }
    let mut story = format!("SPILLGATE_CHAOS_SEED={seed} SPILLGATE_CHAOS_ROUNDS={rounds}");
    for n in 1..=rounds {
        let told = round(&mut chance, &relay, &mut redis).await;
        story = format!("{story}; {told}");
        meet(&daemons).await;
        for daemon in &daemons {
            until("the nodes decide", async || mode(daemon).await == "local").await;
        }
        rest(&granted).await;
        all_have_counted(&daemons, &granted, n, &story).await;
        assert!(daemons.iter_mut().all(Daemon::runs), "{story}");
        granted.resting.store(false, Relaxed);
    }
    granted.stopped.store(true, Relaxed);
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    let tight = granted.tight.lock().unwrap().clone();
    let over = certain_overshoot(&tight, TIGHT, TIGHT);
    let allowed = TIGHT * (1.0 + begun.elapsed().as_secs_f64());
    println!("{} of at most {allowed:.0} granted, {over:.1} over", tight.len());
    assert!(over <= OVER_MAX, "{over} tokens over; {story}");
    let slowest = Duration::from_micros(granted.slowest_us.load(Relaxed));
    assert!(slowest < PROMPT, "an answer took {slowest:?}; {story}");
    let mut by_redis = 0;
    for daemon in &daemons {
        by_redis += outcome(daemon, "allowed").await;
    }
    println!("{} granted, {by_redis} by Redis, slowest {slowest:?}; {story}", granted.roomy.load(Relaxed));
}
