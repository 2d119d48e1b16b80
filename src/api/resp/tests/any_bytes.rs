//! Any bytes, and any commands however they come.

use proptest::prelude::*;

use super::*;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// All answers to `bytes`, which are sent in these pieces.
async fn answers(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut client = Client::new();
    for piece in pieces {
        // the daemon may have had enough
        if client.stream.write_all(&piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    client.stream.shutdown().await.unwrap();
    let mut seen = Vec::new();
    timeout(DEADLINE, client.stream.read_to_end(&mut seen)).await.expect("still open").unwrap();
    timeout(DEADLINE, client.served).await.expect("still served").expect("no panic");
    seen
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "CL.THROTTLE",
            "THROTTLE",
            "SPILLGATE.CHECK",
            "PING",
            "ECHO",
            "HELLO",
            "AUTH",
            "CLIENT",
            "COMMAND",
            "DOCS",
            "RESET",
            "SELECT",
            "CONFIG",
            "GET",
            "3",
            "2",
            "0",
            "15",
            "60",
            "api",
            "quick",
            "k",
            "SETNAME",
            "LIST",
        ])
        .prop_map(|w| w.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..9),
    ];
    prop::collection::vec(word, 1..7).prop_map(|words| {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(&word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    })
}

/// Replies with what differs by time taken out.
fn timeless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let digits = |c: char| c.is_ascii_digit();
    text.split("\r\n").map(|line| if line.starts_with(':') { line.trim_end_matches(digits) } else { line }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_answered_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let seen = run(answers([bytes]));
        prop_assert!(seen.is_empty() || seen.ends_with(b"\r\n"));
    }

    #[test]
    fn commands_are_answered_alike_however_they_come(
        commands in prop::collection::vec(command(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let bytes = commands.concat();
        let whole = run(answers([bytes.clone()]));
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces = run(answers(cuts.windows(2).map(|w| bytes[w[0]..w[1]].to_vec())));
        prop_assert_eq!(timeless(&whole), timeless(&pieces));
    }
}
