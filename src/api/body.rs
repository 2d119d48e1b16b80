//! Reading a request's body within its limits of kind, size and time. It must not know what the bytes say.

use std::time::Duration;

use axum::BoxError;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read and thrown away of a body that was refused, in bytes and in time: a caller that only listens once it
/// has sent everything would meet a reset connection instead of the answer.
const DISCARD_BYTES_MAX: usize = 16 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The whole body.
///
/// # Errors
/// A [`Problem`] when it is not said to be JSON, is too large, too slow, or breaks off.
pub async fn read<B>(request: Request<B>) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (parts, mut body) = request.into_parts();
    let whole = match refusal(&parts.headers) {
        Some(problem) => Err(problem),
        None => timeout(BODY_TIMEOUT, collect(&mut body)).await.unwrap_or_else(|_| {
            let detail = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(Kind::BodyTimeout, detail))
        }),
    };
    let unread = whole.as_ref().is_err_and(|p| matches!(p.kind, Kind::UnsupportedMediaType | Kind::BodyTooLarge));
    // a caller that asked whether to send its body is told before it does
    if unread && !parts.headers.contains_key(EXPECT) {
        // whether all of it came is of no interest: the answer is the same
        let _ = timeout(DISCARD_TIMEOUT, discard(body)).await;
    }
    whole
}

/// What the headers alone say against a body.
fn refusal(headers: &HeaderMap) -> Option<Problem> {
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|n| n > BODY_BYTES_MAX as u64) {
        return Some(too_large());
    }
    let given = headers.get(CONTENT_TYPE)?.as_bytes();
    if given == b"application/json" {
        return None;
    }
    let given = String::from_utf8_lossy(given);
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        return None;
    }
    let shown: String = given.chars().take(128).collect();
    let detail = format!("content type {shown:?} is not JSON; send `-H 'content-type: application/json'`");
    Some(Problem::new(Kind::UnsupportedMediaType, detail))
}

fn too_large() -> Problem {
    Problem::new(
        Kind::BodyTooLarge,
        format!("the body is above {BODY_BYTES_MAX} bytes; split it into several requests"),
    )
}

async fn collect<B>(body: &mut B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    // nearly always it came with its head, in one piece
    let first = match body.frame().await {
        Some(Ok(frame)) if body.is_end_stream() => match frame.into_data() {
            Ok(data) if data.len() <= BODY_BYTES_MAX => return Ok(data),
            Ok(_) => return Err(too_large()),
            Err(_) => Bytes::new(),
        },
        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        Some(Err(e)) => return Err(Problem::new(Kind::Malformed, format!("the body broke off: {}", e.into()))),
        None => return Ok(Bytes::new()),
    };
    let left = BODY_BYTES_MAX.checked_sub(first.len()).ok_or_else(too_large)?;
    match Limited::new(body, left).collect().await.map(|rest| [&first[..], &rest.to_bytes()].concat()) {
        Ok(whole) => Ok(whole.into()),
        Err(e) if e.is::<LengthLimitError>() => Err(too_large()),
        Err(e) => Err(Problem::new(Kind::Malformed, format!("the body broke off: {e}"))),
    }
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > DISCARD_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    fn request(content_type: Option<&str>, body: Vec<u8>) -> Request<axum::body::Body> {
        let mut builder = Request::builder();
        if let Some(t) = content_type {
            builder = builder.header(CONTENT_TYPE, t);
        }
        builder.body(axum::body::Body::from(body)).unwrap()
    }

    #[tokio::test]
    async fn json_by_any_name_and_no_name_at_all_are_read() {
        for t in [None, Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("application/x+json")] {
            assert_eq!(read(request(t, b"{}".to_vec())).await.unwrap(), "{}", "{t:?}");
        }
    }

    #[tokio::test]
    async fn other_types_are_refused_with_the_header_to_send() {
        for t in ["application/x-www-form-urlencoded", "text/plain", ""] {
            let problem = read(request(Some(t), b"{}".to_vec())).await.unwrap_err();
            assert_eq!(problem.kind, Kind::UnsupportedMediaType, "{t}");
            assert!(problem.detail.contains("-H 'content-type: application/json'"), "{}", problem.detail);
        }
    }

    /// A body that never comes.
    struct Silent;

    impl hyper::body::Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let start = tokio::time::Instant::now();
        let problem = read(Request::new(axum::body::Body::new(Silent))).await.unwrap_err();
        assert_eq!((problem.kind, start.elapsed().as_secs()), (Kind::BodyTimeout, 10));
        let mut claimed = Request::new(axum::body::Body::new(Silent));
        claimed.headers_mut().insert(CONTENT_LENGTH, (BODY_BYTES_MAX as u64 + 1).into());
        let problem = read(claimed).await.unwrap_err();
        assert_eq!((problem.kind, start.elapsed().as_secs()), (Kind::BodyTooLarge, 12));
    }

    #[tokio::test]
    async fn a_mebibyte_is_read_and_a_byte_more_is_not() {
        let whole = read(request(None, vec![b' '; BODY_BYTES_MAX])).await.unwrap();
        assert_eq!(whole.len(), BODY_BYTES_MAX);
        let problem = read(request(None, vec![b' '; BODY_BYTES_MAX + 1])).await.unwrap_err();
        assert_eq!(problem.kind, Kind::BodyTooLarge);
    }
}
