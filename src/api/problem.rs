//! Errors as RFC 9457 `application/problem+json`. It must not know what was asked, only what went wrong.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use spillgate_core::decision::CheckError;
use spillgate_core::limit::Limits;

/// How many known limits the answer to an unknown one names.
const NAMES_SHOWN: usize = 10;

/// What kind of thing went wrong: it alone says `type`, title and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The body or the query can't be read.
    Malformed,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// There is no such route.
    NotFound,
    /// There is no such limit.
    UnknownLimit,
    /// The route does not take that method.
    MethodNotAllowed,
    /// The body did not come in time.
    BodyTimeout,
    /// The body is too large.
    BodyTooLarge,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// It was read, and a value in it is not allowed.
    InvalidValue,
    /// The cost is above what the limit can ever grant.
    NeverGranted,
    /// The new configuration is wrong; the old one stays.
    ReloadRefused,
    /// The node has not joined its cluster yet.
    Joining,
    /// The node is on the way out.
    Draining,
    /// As many checks as the node takes at once are being answered.
    Overloaded,
    /// A task of the daemon ended early, which only happens while it shuts down.
    Unavailable,
}

impl Kind {
    const fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Malformed => ("urn:spillgate:problem:malformed", "Malformed request", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("urn:spillgate:problem:unauthorized", "Unauthorized", StatusCode::UNAUTHORIZED),
            Self::NotFound => ("urn:spillgate:problem:not-found", "No such route", StatusCode::NOT_FOUND),
            Self::UnknownLimit => ("urn:spillgate:problem:unknown-limit", "Unknown limit", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("urn:spillgate:problem:method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::BodyTimeout => ("urn:spillgate:problem:body-timeout", "Body too slow", StatusCode::REQUEST_TIMEOUT),
            Self::BodyTooLarge => {
                ("urn:spillgate:problem:body-too-large", "Body too large", StatusCode::PAYLOAD_TOO_LARGE)
            }
            Self::UnsupportedMediaType => (
                "urn:spillgate:problem:unsupported-media-type",
                "Unsupported media type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::InvalidValue => {
                ("urn:spillgate:problem:invalid-value", "Invalid value", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Self::NeverGranted => {
                ("urn:spillgate:problem:never-granted", "Can never be granted", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Self::ReloadRefused => {
                ("urn:spillgate:problem:reload-refused", "Reload refused", StatusCode::UNPROCESSABLE_ENTITY)
            }
            Self::Joining => ("urn:spillgate:problem:joining", "Joining", StatusCode::SERVICE_UNAVAILABLE),
            Self::Draining => ("urn:spillgate:problem:draining", "Draining", StatusCode::SERVICE_UNAVAILABLE),
            Self::Overloaded => ("urn:spillgate:problem:overloaded", "Overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::Unavailable => ("urn:spillgate:problem:unavailable", "Unavailable", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// One error, as the caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// The value that is at fault, and the remedy.
    pub detail: String,
}

impl Problem {
    /// A problem of that kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The same problem, of one item of a batch.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        Self { detail: format!("checks[{index}]: {}", self.detail), ..self }
    }

    /// What the driver could not decide; `limits` are what it knows.
    pub fn of_check(error: &CheckError, limits: &Limits) -> Self {
        match error {
            CheckError::UnknownLimit(name) => Self::unknown_limit(name, limits),
            CheckError::KeyLength(_) | CheckError::Cost(_) | CheckError::Priority { .. } => {
                Self::new(Kind::InvalidValue, error.to_string())
            }
        }
    }

    /// There is no limit `name` in `limits`.
    pub fn unknown_limit(name: &str, limits: &Limits) -> Self {
        let name: String = name.chars().take(128).collect();
        if limits.is_empty() {
            let remedy = "none is configured: start with `--limit NAME=RATE`, or send the limit as an object";
            return Self::new(Kind::UnknownLimit, format!("unknown limit {name:?}; {remedy}"));
        }
        let known: Vec<&str> = limits.iter().map(|(n, _)| n).take(NAMES_SHOWN).collect();
        let more = match limits.len() - known.len() {
            0 => String::new(),
            n => format!(" and {n} more (GET /v1/limits)"),
        };
        Self::new(Kind::UnknownLimit, format!("unknown limit {name:?}; known are {}{more}", known.join(", ")))
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// The answer, whole.
    pub fn whole(self) -> axum::http::Response<Bytes> {
        let (urn, title, status) = self.kind.parts();
        let document = Document { r#type: urn, title, status: status.as_u16(), detail: &self.detail };
        let body = serde_json::to_vec(&document).expect("strings and a number always serialise");
        let mut response = axum::http::Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"spillgate\""));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.whole().map(Body::from)
    }
}

/// The answer where no route matches.
pub async fn no_route(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(Kind::NotFound, format!("there is no {method} {path} here; checks go to POST /v1/check"))
}

/// The answer where a route does not take the method; the router adds the `Allow` header.
pub async fn no_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::new(Kind::MethodNotAllowed, format!("{path} does not take {method}; the Allow header names what it takes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use spillgate_core::limit::{Algorithm, Limit, RuleSpec};

    fn limits(n: usize) -> Limits {
        let rate = "10/s".parse().unwrap();
        let one = |i| Limit::new(&format!("l{i:02}"), RuleSpec::new(Algorithm::TokenBucket, rate), &[]).unwrap();
        Limits::new((0..n).map(one)).unwrap()
    }

    #[test]
    fn an_unknown_limit_names_up_to_ten_known_ones() {
        let error = CheckError::UnknownLimit("apii".into());
        let few = Problem::of_check(&error, &limits(2));
        assert_eq!(few.kind, Kind::UnknownLimit);
        assert_eq!(few.detail, "unknown limit \"apii\"; known are l00, l01");
        let many = Problem::of_check(&error, &limits(12)).detail;
        assert!(many.contains("l09 and 2 more") && !many.contains("l10"), "{many}");
        assert!(Problem::of_check(&error, &limits(0)).detail.contains("--limit NAME=RATE"));
    }

    #[tokio::test]
    async fn the_document_has_the_members_of_rfc_9457() {
        let response = Problem::new(Kind::Draining, "this node is draining").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = r#"{"type":"urn:spillgate:problem:draining","title":"Draining","status":503,"detail":"this node is draining"}"#;
        assert_eq!(body, expected);
    }
}
