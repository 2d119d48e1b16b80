//! Defaults, overrides, and the forms in which values are taken.

use std::path::{Path, PathBuf};

use spillgate_core::limit::{Accuracy, Algorithm, OnPartition, Reserve, RuleSpec};
use spillgate_core::time::Nanos;

use super::super::overrides::parse_limit_flag;
use super::super::{Config, ConfigError, CredentialFiles, Overrides};
use super::{problems_with, read, read_with};

const CLUSTER: &str = "[cluster]\nsecret_file = 's'\n";

#[test]
fn nothing_at_all_is_a_single_node_without_limits() {
    let config = Config::load(None, &Overrides::default()).unwrap();
    assert_eq!(config.node.id, gethostname::gethostname().to_str().unwrap());
    assert_eq!(config.node.max_keys, 1_000_000);
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:8470");
    assert_eq!((config.http.unix, config.http.token_file, config.cluster), (None, None, None));
    assert!(config.limits.is_empty());
}

#[test]
fn a_cluster_has_the_defaults_of_the_manual() {
    let cluster = read(CLUSTER).cluster.unwrap();
    assert_eq!(cluster.name, "spillgate");
    assert_eq!(cluster.listen.to_string(), "0.0.0.0:8471");
    assert_eq!((cluster.advertise, cluster.seeds.len()), (None, 0));
    assert_eq!(cluster.gossip_interval, Nanos::from_millis(10));
    assert_eq!(cluster.stale_after, Nanos::from_millis(200));
    assert_eq!(cluster.forget_after, Nanos::from_secs(60));
    assert_eq!(cluster.join_timeout, Nanos::from_secs(5));
}

#[test]
fn a_limit_has_the_defaults_of_core() {
    let config = read("[[limit]]\nname = 'api'\nrate = '100/s'\n");
    let rule = config.limits.find("api").unwrap().rule();
    assert_eq!(*rule.spec(), RuleSpec::new(Algorithm::TokenBucket, "100/s".parse().unwrap()));
}

#[test]
fn every_value_of_a_limit_arrives() {
    let config = read(
        "[[limit]]
        name = 'queue'
        algorithm = 'leaky-bucket'
        rate = '10/10s'
        burst = 200
        accuracy = 'bounded'
        max_overshoot = '2.5%'
        confirm_wait = '7ms'
        on_partition = 'continue'
        enforce = false
        max_delay = '500ms'
        reserve = { low = 0.2, batch = '50%' }
        [[limit.override]]
        key = 'tenant:*'
        rate = '1000/s'
        [[limit.override]]
        key = 'vip'
        burst = 5",
    );
    let limit = config.limits.find("queue").unwrap();
    let reserve = [("batch", 0.5), ("low", 0.2)].map(|(p, fraction)| Reserve { priority: p.to_owned(), fraction });
    let expected = RuleSpec {
        algorithm: Algorithm::LeakyBucket,
        rate: "10/10s".parse().unwrap(),
        burst: Some(200),
        accuracy: Accuracy::Bounded { max_overshoot: 0.025 },
        confirm_wait: Nanos::from_millis(7),
        on_partition: OnPartition::Continue,
        enforce: false,
        max_delay: Some(Nanos::from_millis(500)),
        reserve: reserve.to_vec(),
    };
    assert_eq!(*limit.rule().spec(), expected);
    let capacities = ["vip", "tenant:1", "other"].map(|key| limit.rule_for(key).capacity());
    assert_eq!(capacities, [5, 1000, 200]);
}

#[test]
fn every_word_of_a_choice_is_known() {
    for (algorithm, accuracy, on_partition) in [
        ("token-bucket", "strict", "share"),
        ("leaky-bucket", "bounded", "continue"),
        ("fixed-window", "gossip", "deny"),
        ("sliding-window", "bounded", "share"),
    ] {
        let text = format!(
            "[[limit]]\nname = 'a'\nrate = '9/m'\nalgorithm = '{algorithm}'\naccuracy = '{accuracy}'\n\
             on_partition = '{on_partition}'"
        );
        let config = read(&text);
        let spec = config.limits.find("a").unwrap().rule().spec();
        let words = (spec.algorithm.as_str(), spec.accuracy.as_str(), spec.on_partition.as_str());
        assert_eq!(words, (algorithm, accuracy, on_partition));
    }
}

#[test]
fn certificates_take_the_place_of_the_secret() {
    let config = read("[cluster.tls]\nca = '/ca'\ncert = 'cert'\nkey = 'key'\n");
    let path = |text: &str| PathBuf::from(text);
    let expected = CredentialFiles::Tls { ca: path("/ca"), cert: path("dir/cert"), key: path("dir/key") };
    assert_eq!(config.cluster.unwrap().credentials, expected);
}

#[test]
fn relative_paths_start_at_the_file_and_those_of_flags_do_not() {
    let text = "http.unix = 'socket'\nhttp.token_file = '/token'\n[cluster]\nsecret_file = 'secret'\n";
    let config = read(text);
    assert_eq!(config.http.unix.as_deref(), Some(Path::new("dir/socket")));
    assert_eq!(config.http.token_file.as_deref(), Some(Path::new("/token")));
    let overrides = Overrides { secret_file: Some("mine".into()), ..Overrides::default() };
    let config = read_with(text, &overrides).unwrap();
    assert_eq!(config.cluster.unwrap().credentials, CredentialFiles::Secret("mine".into()));
}

#[test]
fn a_unix_socket_alone_means_no_tcp() {
    let unix = "[http]\nunix = '/s'\n";
    assert_eq!(read(unix).http.listen, None);
    assert!(read("[http]\nunix = '/s'\nlisten = '127.0.0.1:1'").http.listen.is_some());
    let overrides = Overrides { http: Some("[::1]:0".parse().unwrap()), ..Overrides::default() };
    assert_eq!(read_with(unix, &overrides).unwrap().http.listen, overrides.http);
}

#[test]
fn redis_clients_are_served_where_the_section_or_the_flag_is_there() {
    assert_eq!(read("").resp, None);
    assert_eq!(read("[resp]").resp.unwrap().listen, crate::config::RESP_LISTEN_DEFAULT);
    let flag = Overrides { resp: Some("[::1]:1".parse().unwrap()), ..Overrides::default() };
    for text in ["", "[resp]\nlisten = '127.0.0.1:2'"] {
        assert_eq!(read_with(text, &flag).unwrap().resp.unwrap().listen, flag.resp.unwrap());
    }
    let config = read("[resp]\nlisten = '0.0.0.0:1'\n[http]\ntoken_file = '/t'");
    assert!(config.to_string().contains("\nresp     0.0.0.0:1, AUTH with the token\n"), "{config}");
    let config = read("[node]\nid = 'a'\n[resp]\n[redis]\nurl = 'redis://r'");
    assert!(config.resp.is_some() && config.redis.is_some(), "Redis decides what its own clients ask for, too");
}

#[test]
fn an_address_for_all_needs_a_token_and_loopback_in_any_form_does_not() {
    for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(read(&format!("http.listen = '{listen}'")).http.token_file, None);
    }
    let config = read("[http]\nlisten = '0.0.0.0:8470'\ntoken_file = '/t'");
    assert!(config.http.token_file.is_some());
    let overrides = Overrides { token_file: Some("/t".into()), ..Overrides::default() };
    read_with("http.listen = '0.0.0.0:8470'", &overrides).unwrap();
}

#[test]
fn flags_win_over_the_file() {
    let text = "
        node.id = 'file'
        http.listen = '127.0.0.1:1'
        [cluster]
        listen = '127.0.0.1:2'
        advertise = '127.0.0.1:3'
        seeds = ['file:4']
        tls = { ca = 'a', cert = 'b', key = 'c' }
        [[limit]]
        name = 'api'
        rate = '1/s'
        accuracy = 'strict'
        [[limit]]
        name = 'other'
        rate = '1/s'";
    let overrides = Overrides {
        node_id: Some("flag".to_owned()),
        data_dir: Some("/data".into()),
        http: Some("127.0.0.1:11".parse().unwrap()),
        resp: Some("127.0.0.1:14".parse().unwrap()),
        token_file: Some("token".into()),
        cluster_listen: Some("127.0.0.1:12".parse().unwrap()),
        advertise: Some("127.0.0.1:13".parse().unwrap()),
        seeds: vec!["flag:14".to_owned()],
        secret_file: Some("secret".into()),
        limits: vec![parse_limit_flag("api=100/s:200").unwrap(), parse_limit_flag("new=5/m").unwrap()],
    };
    let config = read_with(text, &overrides).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!((config.node.id, config.node.data_dir), ("flag".to_owned(), Some("/data".into())));
    assert_eq!((config.http.listen, config.http.token_file), (overrides.http, overrides.token_file));
    assert_eq!((Some(cluster.listen), cluster.advertise), (overrides.cluster_listen, overrides.advertise));
    assert_eq!(cluster.seeds, overrides.seeds);
    assert_eq!(cluster.credentials, CredentialFiles::Secret("secret".into()));
    assert_eq!(config.limits.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["api", "new", "other"]);
    assert_eq!(config.limits.find("api"), overrides.limits.first());
}

#[test]
fn any_flag_of_the_cluster_makes_one_and_all_need_the_secret() {
    let secret = Overrides { secret_file: Some("s".into()), ..Overrides::default() };
    assert!(read_with("", &secret).unwrap().cluster.is_some());
    let seeds = vec!["a:1".to_owned()];
    let listen = Some("127.0.0.1:0".parse().unwrap());
    for (overrides, flag) in [
        (Overrides { seeds, ..Overrides::default() }, "--seed"),
        (Overrides { cluster_listen: listen, ..Overrides::default() }, "--cluster-listen"),
        (Overrides { advertise: "10.0.0.1:1".parse().ok(), ..Overrides::default() }, "--advertise"),
    ] {
        assert!(read_with(CLUSTER, &overrides).is_ok());
        let error = read_with("", &overrides).unwrap_err().to_string();
        let start = format!("{flag}: cluster.secret_file (--secret-file) or [cluster.tls] is missing");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn wrong_values_of_flags_are_reported_by_flag() {
    let limit = || parse_limit_flag("api=1/s").unwrap();
    let overrides = Overrides {
        node_id: Some("a b".to_owned()),
        http: Some("0.0.0.0:1".parse().unwrap()),
        advertise: Some("0.0.0.0:1".parse().unwrap()),
        seeds: vec!["here".to_owned()],
        secret_file: Some("s".into()),
        limits: vec![limit(), limit()],
        ..Overrides::default()
    };
    let problems = problems_with("", &overrides);
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert!(problems.iter().all(|p| p.line().is_none()));
    let text = read_with("", &overrides).unwrap_err().to_string();
    for flag in ["--node-id", "--http", "--advertise", "--seed", "--limit"] {
        assert!(text.lines().any(|l| l.starts_with(&format!("{flag}: "))), "{flag} in {text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/spillgate.toml")), &Overrides::default()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    assert!(error.to_string().starts_with("/nowhere/spillgate.toml: cannot read the configuration file: "), "{error}");
}

#[test]
fn files_that_are_named_are_opened_only_by_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("spillgate.toml");
    std::fs::write(&file, "[http]\ntoken_file = 'token'\n\n[cluster]\nsecret_file = 'secret'\n").unwrap();
    std::fs::write(directory.path().join("token"), " \n").unwrap();
    Config::load(Some(&file), &Overrides::default()).unwrap();
    let text = Config::check(Some(&file), &Overrides::default()).unwrap_err().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(":2: http.token_file ") && lines[0].contains("is empty"), "{text}");
    assert!(lines[1].contains(":5: cluster.secret_file ") && lines[1].contains("`spillgate secret`"), "{text}");
    for name in ["token", "secret"] {
        std::fs::write(directory.path().join(name), "abc").unwrap();
    }
    Config::check(Some(&file), &Overrides::default()).unwrap();
}
