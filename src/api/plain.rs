//! Plain requests for checks, answered as they lie in the buffer. It must not know how anything else is answered: from the
//! first byte on that is no such request, or comes slowly, the connection is hyper's.
//!
//! Taking a request apart and putting an answer together for any method, header and body costs hyper several times what a
//! check does. Plain is what clients send that ask all the time: HTTP/1.1, kept connections, a length, JSON. A pipeline is
//! answered with one write.

use std::future::pending;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{Response, Version};
use bytes::Bytes;
use httparse::{Header, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Api;
use super::answer::{self, Answer};
use super::cork::Corked;
use super::http;
use super::listen::wait_for_shutdown;
use super::pace::Pace;
use super::problem::Problem;

/// What every plain request begins with.
const BEGIN: &[u8] = b"POST /v1/check";
/// What is read into at first, and at most: a larger request is not plain.
const INPUT_BYTES: usize = 4 << 10;
const INPUT_BYTES_MAX: usize = 32 << 10;
/// More headers than this are not plain.
const HEADERS_MAX: usize = 32;
/// A request of which the rest does not come within this is not plain: its sender's time is measured elsewhere.
const WHOLE_WITHIN: Duration = Duration::from_millis(100);

/// Answers plain requests until there is none: what was read and is none is returned, for hyper to begin with. `None` when
/// the client has closed, or the daemon is to stop.
///
/// # Errors
/// Those of the stream.
pub async fn serve<S>(
    api: &Api,
    stream: &mut Corked<S>,
    pace: &Arc<Pace>,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Option<Vec<u8>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut input, mut read) = (vec![0; INPUT_BYTES], 0..0);
    let (mut output, mut room, mut date) = (Vec::new(), Vec::new(), Date::default());
    loop {
        let plain = loop {
            match front(&input[read.clone()]) {
                Front::Request(request) if api.token.as_ref().is_none_or(|t| t.is_bearer(request.authorization)) => {
                    let _answering = pace.answering(Version::HTTP_11);
                    output.clear();
                    let answering = answer(api, &request, &mut date, &mut room, &mut output);
                    if unless_gone(stream, answering).await?.is_none() {
                        return Ok(None);
                    }
                    stream.write_all(&output).await?;
                    read.start += request.bytes;
                }
                Front::Partial => break make_room(&mut input, &mut read),
                Front::Request(_) | Front::Other => break false,
            }
        };
        if !plain {
            return Ok(Some(input[read].to_vec()));
        }
        let reading = stream.read(&mut input[read.end..]);
        let n = if read.is_empty() {
            tokio::select! {
                biased;
                n = reading => n?,
                () = wait_for_shutdown(stop) => 0,
            }
        } else if let Ok(n) = timeout(WHOLE_WITHIN, reading).await {
            n?
        } else {
            return Ok(Some(input[read].to_vec()));
        };
        if n == 0 {
            stream.shutdown().await?;
            return Ok(None);
        }
        read.end += n;
        // whoever sends more than fits at once takes turns with the others
        if read.end == input.len() {
            yield_now().await;
        }
    }
}

/// Answers into `output`; `room` is reused from one answer to the next.
async fn answer(api: &Api, request: &Plain<'_>, date: &mut Date, room: &mut Vec<u8>, output: &mut Vec<u8>) {
    let answered = match request.of {
        Of::One => match http::decide(api, request.body).await {
            Ok((wanted, decision)) => {
                let limit = wanted.limit.as_ref();
                let answer = Answer { limit: limit.name(), key: &wanted.key, decision: &decision };
                return answer::write_one(answer, date.now(), room, output);
            }
            Err(problem) => Err(problem),
        },
        Of::Many => http::checks(api, request.body).await,
    };
    write(&answered.unwrap_or_else(Problem::whole), date.now(), output);
}

/// The answer; `None` when the client leaves while it is held, so that a request nobody waits for takes no tokens.
async fn unless_gone<S, T>(stream: &mut Corked<S>, answer: impl Future<Output = T>) -> io::Result<Option<T>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ahead = Vec::new();
    let answered = tokio::select! {
        biased;
        answered = answer => Some(answered),
        gone = read_ahead(stream, &mut ahead) => { gone?; None }
    };
    if !ahead.is_empty() {
        stream.unread(ahead);
    }
    Ok(answered)
}

/// Reads on, as far as that is little; ready once the client has closed.
async fn read_ahead(stream: &mut (impl AsyncRead + Unpin), ahead: &mut Vec<u8>) -> io::Result<()> {
    while stream.take((INPUT_BYTES - ahead.len()) as u64).read_buf(ahead).await? > 0 {
        if ahead.len() == INPUT_BYTES {
            return pending().await;
        }
    }
    Ok(())
}

/// Makes room behind what was read; false when there can be none.
fn make_room(input: &mut Vec<u8>, read: &mut Range<usize>) -> bool {
    if read.start == read.end {
        *read = 0..0;
    } else if read.end == input.len() && read.start > 0 {
        input.copy_within(read.clone(), 0);
        *read = 0..read.len();
    }
    if read.end == input.len() {
        if input.len() >= INPUT_BYTES_MAX {
            return false;
        }
        input.resize(input.len() * 2, 0);
    }
    true
}

/// How the front of the buffer is read, for those who compare it with another reader: the length of the whole request in
/// front, the path and the body. `None`: what stands there is no whole plain request.
#[must_use]
pub fn read_front(bytes: &[u8]) -> Option<(usize, &'static str, &[u8])> {
    let Front::Request(request) = front(bytes) else { return None };
    let path = match request.of {
        Of::One => "/v1/check",
        Of::Many => "/v1/checks",
    };
    Some((request.bytes, path, request.body))
}

/// What stands in front of the buffer.
#[derive(Debug, PartialEq)]
enum Front<'b> {
    Request(Plain<'b>),
    /// What may become one.
    Partial,
    /// Something else.
    Other,
}

/// Which of the two it asks.
#[derive(Debug, PartialEq)]
enum Of {
    One,
    Many,
}

#[derive(Debug, PartialEq)]
struct Plain<'b> {
    of: Of,
    authorization: Option<&'b [u8]>,
    body: &'b [u8],
    /// Of head and body together.
    bytes: usize,
}

fn front(bytes: &[u8]) -> Front<'_> {
    let seen = bytes.len().min(BEGIN.len());
    if bytes[..seen] != BEGIN[..seen] {
        return Front::Other;
    }
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let length = match head.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Front::Partial,
        Err(_) => return Front::Other,
    };
    let of = match head.path {
        Some("/v1/check") => Of::One,
        Some("/v1/checks") => Of::Many,
        _ => return Front::Other,
    };
    if head.method != Some("POST") || head.version != Some(1) {
        return Front::Other;
    }
    let Some((body_length, authorization)) = read_headers(head.headers) else { return Front::Other };
    if body_length > INPUT_BYTES_MAX {
        return Front::Other;
    }
    match bytes.get(length..length + body_length) {
        Some(body) => Front::Request(Plain { of, authorization, body, bytes: length + body_length }),
        None => Front::Partial,
    }
}

/// The length of the body, and what is presented for a token; `None` when a header asks for anything that is not plain.
fn read_headers<'b>(headers: &[Header<'b>]) -> Option<(usize, Option<&'b [u8]>)> {
    let (mut length, mut authorization) = (None, None);
    for Header { name, value } in headers {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("content-length") {
            let digits = !value.is_empty() && value.len() <= 9 && value.iter().all(u8::is_ascii_digit);
            if length.is_some() || !digits {
                return None;
            }
            length = Some(value.iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0')));
        } else if is("authorization") {
            authorization = authorization.or(Some(*value));
        } else if (is("content-type") && *value != b"application/json")
            || (is("connection") && !value.eq_ignore_ascii_case(b"keep-alive"))
            || is("transfer-encoding")
            || is("expect")
            || is("upgrade")
        {
            return None;
        }
    }
    Some((length?, authorization))
}

/// Writes an answer as it goes over the wire.
fn write(response: &Response<Bytes>, date: &str, output: &mut Vec<u8>) {
    let status = response.status();
    output.extend_from_slice(b"HTTP/1.1 ");
    output.extend_from_slice(status.as_str().as_bytes());
    output.push(b' ');
    output.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in response.headers() {
        output.extend_from_slice(b"\r\n");
        output.extend_from_slice(name.as_str().as_bytes());
        output.extend_from_slice(b": ");
        output.extend_from_slice(value.as_bytes());
    }
    answer::end_head(response.body().len(), date, output);
    output.extend_from_slice(response.body());
}

/// The date that answers carry, made once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            (self.second, self.text) = (second, httpdate::fmt_http_date(now));
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /v1/check HTTP/1.1\r\nHost: x\r\n";

    fn with(headers: &str, body: &str) -> String {
        format!("{HEAD}{headers}content-length: {}\r\n\r\n{body}", body.len())
    }

    #[test]
    fn a_whole_request_is_told_from_its_parts_and_from_what_follows() {
        let one = with("Content-Type: application/json\r\nAuthorization: Bearer x\r\n", "{\"a\":1}");
        let two = format!("{one}POST /v1/checks");
        for end in 0..one.len() {
            assert_eq!(front(&one.as_bytes()[..end]), Front::Partial, "{end}");
        }
        let whole = Plain { of: Of::One, authorization: Some(b"Bearer x"), body: b"{\"a\":1}", bytes: one.len() };
        assert_eq!(front(two.as_bytes()), Front::Request(whole));
        let batch = two.replace("/v1/check ", "/v1/checks ");
        assert!(matches!(front(batch.as_bytes()), Front::Request(Plain { of: Of::Many, .. })));
    }

    /// Whatever hyper would answer otherwise, or read otherwise.
    #[test]
    fn what_asks_for_more_than_an_answer_is_not_plain() {
        for headers in [
            "Connection: close\r\n",
            "Connection: keep-alive, upgrade\r\n",
            "Content-Type: text/plain\r\n",
            "Content-Type: application/json; charset=utf-8\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "Upgrade: h2c\r\n",
            "Content-Length: 2\r\n",
            "bad header\r\n",
        ] {
            assert_eq!(front(with(headers, "{}").as_bytes()), Front::Other, "{headers}");
        }
        for length in ["-1", "+2", "2,2", "0x2", "", "9999999999", "40000"] {
            assert_eq!(
                front(format!("{HEAD}content-length: {length}\r\n\r\n{{}}").as_bytes()),
                Front::Other,
                "{length}"
            );
        }
        assert_eq!(front(format!("{HEAD}\r\n").as_bytes()), Front::Other, "no length");
        for other in
            ["GET /v1/check", "POST /v1/refund", "POST /v1/check/", "POST /v1/check?x", "PRI * HTTP/2.0", "\r\n", "x"]
        {
            let whole = with("", "{}").replacen("POST /v1/check", other, 1);
            assert_eq!(front(whole.as_bytes()), Front::Other, "{other}");
        }
        assert_eq!(front(with("", "{}").replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes()), Front::Other);
        let many: String = (0..HEADERS_MAX).map(|i| format!("x-{i}: y\r\n")).collect();
        assert_eq!(front(with(&many, "{}").as_bytes()), Front::Other);
        assert!(matches!(front(with("cOnNeCtIoN: Keep-Alive\r\nX: y\r\n", "{}").as_bytes()), Front::Request(_)));
    }

    #[test]
    fn an_answer_says_its_length_and_the_date() {
        let response = Response::builder().status(404).header("x", "y").body(Bytes::from("body")).unwrap();
        let mut output = Vec::new();
        write(&response, "now", &mut output);
        let expected = "HTTP/1.1 404 Not Found\r\nx: y\r\ncontent-length: 4\r\ndate: now\r\n\r\nbody";
        assert_eq!(String::from_utf8(output).unwrap(), expected);
        let mut date = Date::default();
        assert!(date.now().ends_with(" GMT") && date.now().len() == 29);
    }

    #[test]
    fn room_is_made_until_there_is_none() {
        let (mut input, mut read) = (vec![0; INPUT_BYTES], 0..0);
        while make_room(&mut input, &mut read) {
            assert!(read.end < input.len());
            read.end = input.len();
        }
        assert_eq!(input.len(), INPUT_BYTES_MAX);
        read.start = 10;
        assert!(make_room(&mut input, &mut read));
        assert_eq!(read, 0..INPUT_BYTES_MAX - 10);
        read.start = read.end;
        assert!(make_room(&mut input, &mut read));
        assert_eq!(read, 0..0);
    }
}
