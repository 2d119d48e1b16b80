//! The routes: each reads, asks the driver or the daemon, and answers. It must not know sockets or how to decide.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, Response, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{BoxError, Router};
use bytes::Bytes;
use http_body_util::{Either, Full};
use serde::{Deserialize, Serialize};
use spillgate_core::decision::{CheckError, Decision, LimitRef};
use spillgate_core::limit::KEY_BYTES_MAX;
use spillgate_core::time::Nanos;
use spillgate_core::view::TopBy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::ServiceExt;

use super::answer::{self, Answer};
use super::ask::{draining, refuse_mistake};
use super::body;
use super::listen::Speak;
use super::pace::Patience;
use super::problem::{Kind, Problem, no_method, no_route};
use super::request::{self, Mode, Target, Wanted};
use super::token::{self, Token};
use super::{Api, Readiness, connection, view};

/// The most keys that `GET /v1/top` lists.
const TOP_MAX: usize = 1000;
const TOP_DEFAULT: usize = 20;

type Shared = State<Arc<Api>>;
type Answered = Result<Response<Body>, Problem>;

/// The HTTP API: every route, and ahead of it those that are asked all the time.
pub struct Http {
    api: Arc<Api>,
    router: Router,
}

impl Http {
    /// Answers from `api`.
    pub fn new(api: Arc<Api>) -> Arc<Self> {
        Arc::new(Self { router: router(api.clone()), api })
    }

    /// Answers one request that is not plain (`plain.rs`). What finding its route and passing through layers costs is as
    /// much as a whole check, so the two requests that check are known by their text; all that is special about them is left
    /// to the router. Their answers are whole.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<Either<Full<Bytes>, Body>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let known = self.api.token.as_ref().is_none_or(|token| token.is_in(request.headers()));
        let many = match request.uri().path() {
            "/v1/check" if known && request.method() == Method::POST => false,
            "/v1/checks" if known && request.method() == Method::POST => true,
            _ => {
                let answer = self.router.clone().oneshot(request.map(Body::new)).await;
                return answer.unwrap_or_else(|never| match never {}).map(Either::Right);
            }
        };
        let answered = match body::read(request).await {
            Ok(body) if many => checks(&self.api, &body).await,
            Ok(body) => check(&self.api, &body).await,
            Err(problem) => Err(problem),
        };
        answered.unwrap_or_else(Problem::whole).map(|body| Either::Left(Full::new(body)))
    }
}

impl Speak for Arc<Http> {
    async fn serve<S>(self, stream: S, shutdown: watch::Receiver<bool>, patience: Patience)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let api = self.api.clone();
        connection::serve(move |request| self.clone().answer(request), Some(&api), stream, shutdown, patience).await;
    }
}

/// Every route of the API. All but the two of health need the token, where there is one.
fn router(api: Arc<Api>) -> Router {
    let token = api.token.clone();
    let guarded = Router::new()
        .route("/v1/check", post(check_by_route))
        .route("/v1/checks", post(checks_by_route))
        .route("/v1/refund", post(refund))
        .route("/v1/reset", post(reset))
        .route("/v1/limits", get(limits))
        .route("/v1/keys/{limit}/{*key}", get(key))
        .route("/v1/top", get(top))
        .route("/v1/cluster", get(cluster))
        .route("/v1/reload", post(reload))
        .route("/v1/drain", post(drain))
        .route("/metrics", get(metrics))
        .with_state(api.clone());
    let open = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(api);
    assemble(guarded, open, token)
}

/// Puts the token before the guarded routes, and problems where no route or method matches.
fn assemble(guarded: Router, open: Router, token: Option<Arc<Token>>) -> Router {
    let guarded = match token {
        Some(token) => guarded.route_layer(from_fn_with_state(token, token::guard)),
        None => guarded,
    };
    guarded.merge(open).fallback(no_route).method_not_allowed_fallback(no_method)
}

async fn check_by_route(State(api): Shared, request: Request<Body>) -> Answered {
    let body = body::read(request).await?;
    check(&api, &body).await.map(|r| r.map(Body::from))
}

async fn checks_by_route(State(api): Shared, request: Request<Body>) -> Answered {
    let body = body::read(request).await?;
    checks(&api, &body).await.map(|r| r.map(Body::from))
}

async fn check(api: &Api, body: &[u8]) -> Result<Response<Bytes>, Problem> {
    let (wanted, decision) = decide(api, body).await?;
    Ok(answer::one(Answer { limit: wanted.limit.as_ref().name(), key: &wanted.key, decision: &decision }))
}

/// Decides what the body of a check asks.
pub(super) async fn decide<'b>(api: &Api, body: &'b [u8]) -> Result<(Wanted<'b>, Decision), Problem> {
    let wanted = request::check(body)?;
    let decision = api.check(&wanted).await?;
    refuse_mistake(wanted.limit.as_ref().name(), &decision)?;
    Ok((wanted, decision))
}

/// Answers the body of a batch.
pub(super) async fn checks(api: &Api, body: &[u8]) -> Result<Response<Bytes>, Problem> {
    let batch = request::batch(body)?;
    api.refuse_if_draining()?;
    let _slot = api.slot()?;
    let decisions = match batch.mode {
        Mode::Each => {
            let each: Vec<_> = batch.checks.iter().map(|w| (w.check(), w.wait)).collect();
            api.driver.check_each(&each).await
        }
        Mode::All => {
            let all: Vec<_> = batch.checks.iter().map(Wanted::check).collect();
            let wait = batch.checks.iter().map(|w| w.wait).max().unwrap_or(Nanos::ZERO);
            api.driver.check_all(&all, wait).await
        }
    };
    let decisions = decisions.map_err(|e| api.problem_of_item(&e))?;
    let limits: Vec<LimitRef<'_>> = batch.checks.iter().map(|w| w.limit.as_ref()).collect();
    let answers: Vec<_> = (batch.checks.iter().zip(&limits).zip(&decisions))
        .map(|((w, limit), decision)| Answer { limit: limit.name(), key: &w.key, decision })
        .collect();
    Ok(answer::many(&answers))
}

async fn refund(State(api): Shared, request: Request<Body>) -> Answered {
    let body = body::read(request).await?;
    let Target { limit, key, cost } = request::refund(&body)?;
    let refunded = api.driver.refund(limit.as_ref(), &key, cost).map_err(|e| api.problem(&e))?;
    Ok(answer::refunded(limit.as_ref().name(), &key, refunded))
}

async fn reset(State(api): Shared, request: Request<Body>) -> Answered {
    let body = body::read(request).await?;
    let Target { limit, key, .. } = request::reset(&body)?;
    let refunded = api.driver.reset(limit.as_ref(), &key).map_err(|e| api.problem(&e))?;
    Ok(answer::refunded(limit.as_ref().name(), &key, refunded))
}

async fn limits(State(api): Shared) -> Response<Body> {
    answer::json(&view::limits(&api.driver.limits()))
}

async fn key(State(api): Shared, path: Result<Path<(String, String)>, PathRejection>) -> Answered {
    let (limit, key) = path_of_key(path)?;
    let explanation = api.driver.explain(LimitRef::Named(&limit), &key).map_err(|e| api.problem(&e))?;
    if let Some(explanation) = explanation {
        return Ok(answer::json(&view::key(&limit, &key, &explanation)));
    }
    let limits = api.driver.limits();
    let known = limits.find(&limit).ok_or_else(|| Problem::unknown_limit(&limit, &limits))?;
    Ok(answer::json(&view::unknown_key(&limit, &key, known.rule_for(&key))))
}

fn path_of_key(path: Result<Path<(String, String)>, PathRejection>) -> Result<(String, String), Problem> {
    let Path((limit, key)) = path.map_err(|e| {
        let remedy = "percent-encode the key's bytes as UTF-8";
        Problem::new(Kind::Malformed, format!("the path can't be read: {}; {remedy}", e.body_text()))
    })?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::new(Kind::InvalidValue, CheckError::KeyLength(key.len()).to_string()));
    }
    Ok((limit, key))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopQuery {
    by: Option<String>,
    n: Option<String>,
}

fn top_query(uri: &Uri) -> Result<(TopBy, usize), Problem> {
    let Query(query) = Query::<TopQuery>::try_from_uri(uri).map_err(|e| {
        Problem::new(Kind::Malformed, format!("{}; send for example ?by=granted&n={TOP_DEFAULT}", e.body_text()))
    })?;
    let shorten = |text: &str| text.chars().take(64).collect::<String>();
    let by = match query.by.as_deref() {
        None | Some("granted") => TopBy::Granted,
        Some("denied") => TopBy::Denied,
        Some(other) => {
            let detail = format!("by={:?} must be \"granted\" or \"denied\"", shorten(other));
            return Err(Problem::new(Kind::InvalidValue, detail));
        }
    };
    let n = query.n.as_deref().map_or(Ok(TOP_DEFAULT), |n| {
        let within = n.parse().ok().filter(|n| (1..=TOP_MAX).contains(n));
        let detail = || format!("n={:?} must be a whole number from 1 to {TOP_MAX}", shorten(n));
        within.ok_or_else(|| Problem::new(Kind::InvalidValue, detail()))
    })?;
    Ok((by, n))
}

async fn top(State(api): Shared, uri: Uri) -> Answered {
    let (by, n) = top_query(&uri)?;
    let keys = apart(move || api.driver.top(by, n)).await?;
    Ok(answer::json(&view::top(by, keys)))
}

async fn cluster(State(api): Shared) -> Response<Body> {
    let control = &api.control;
    answer::json(&view::cluster(control.identity(), control.readiness(), control.decider(), control.members()))
}

#[derive(Serialize)]
struct Reloaded {
    reloaded: bool,
    changes: String,
}

async fn reload(State(api): Shared) -> Answered {
    let changes = apart(move || api.control.reload()).await?;
    let changes = changes.map_err(|e| Problem::new(Kind::ReloadRefused, format!("nothing was changed: {e}")))?;
    Ok(answer::json(&Reloaded { reloaded: true, changes }))
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

async fn drain(State(api): Shared) -> Response<Body> {
    api.control.drain();
    answer::json(&Status { status: api.control.readiness().as_str() })
}

async fn healthz() -> Response<Body> {
    answer::json(&Status { status: "ok" })
}

async fn readyz(State(api): Shared) -> Answered {
    match api.control.readiness() {
        Readiness::Ready => Ok(answer::json(&Status { status: Readiness::Ready.as_str() })),
        Readiness::Joining => Err(Problem::new(Kind::Joining, "this node has not joined its cluster yet")),
        Readiness::Draining => Err(draining()),
    }
}

async fn metrics(State(api): Shared) -> Answered {
    let text = apart(move || api.control.metrics()).await?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// Runs what takes milliseconds beside the threads that answer checks.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Problem::new(Kind::Unavailable, format!("the daemon could not finish this: {e}; ask again")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
    use http_body_util::BodyExt;
    use serde_json::Value;

    async fn ask(router: &Router, method: &str, uri: &str, token: Option<&str>) -> (Response<Body>, Value) {
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(parts, Body::empty()), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    fn assembled(token: Option<&str>) -> Router {
        let guarded = Router::new().route("/guarded", get(healthz).post(healthz));
        let open = Router::new().route("/open", get(healthz));
        assemble(guarded, open, token.map(|t| Arc::new(Token::new(t).unwrap())))
    }

    #[tokio::test]
    async fn what_matches_no_route_or_method_is_a_problem() {
        let router = assembled(None);
        let (response, body) = ask(&router, "GET", "/nowhere", None).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["type"], "urn:spillgate:problem:not-found");
        assert!(body["detail"].as_str().unwrap().contains("GET /nowhere"), "{body}");
        let (response, body) = ask(&router, "DELETE", "/guarded", None).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,POST");
        assert_eq!(body["type"], "urn:spillgate:problem:method-not-allowed");
        assert_eq!(ask(&router, "GET", "/guarded", None).await.0.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn the_token_guards_all_but_the_open_routes() {
        let router = assembled(Some("s3cret"));
        assert_eq!(ask(&router, "GET", "/open", None).await.0.status(), StatusCode::OK);
        assert_eq!(ask(&router, "GET", "/guarded", Some("s3cret")).await.0.status(), StatusCode::OK);
        for (given, part) in [(None, "is missing"), (Some("other"), "is wrong")] {
            let (response, body) = ask(&router, "GET", "/guarded", given).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(response.headers()[WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
            assert!(body["detail"].as_str().unwrap().contains(part), "{body}");
        }
    }

    #[tokio::test]
    async fn a_key_in_the_path_is_decoded_and_may_hold_slashes() {
        let echo = |path: Result<Path<(String, String)>, PathRejection>| async {
            path_of_key(path).map(|(limit, key)| answer::json(&[limit, key]))
        };
        let router = Router::new().route("/v1/keys/{limit}/{*key}", get(echo)).fallback(no_route);
        for (uri, key) in [
            ("/v1/keys/api/user:42", "user:42"),
            ("/v1/keys/api/a%2Fb", "a/b"),
            ("/v1/keys/api/a/b/", "a/b/"),
            ("/v1/keys/api//x", "/x"),
            ("/v1/keys/api/%C3%BC%20%25", "ü %"),
        ] {
            let (_, body) = ask(&router, "GET", uri, None).await;
            assert_eq!(body, serde_json::json!(["api", key]), "{uri}");
        }
        let long = format!("/v1/keys/api/{}", "k".repeat(1025));
        for (uri, status) in [("/v1/keys/api/%ff", 400), ("/v1/keys/api/", 404), (long.as_str(), 422)] {
            assert_eq!(ask(&router, "GET", uri, None).await.0.status().as_u16(), status, "{uri}");
        }
    }

    #[test]
    fn the_query_of_top_has_defaults_and_bounds() {
        let query = |text: &str| top_query(&text.parse().unwrap());
        assert_eq!(query("/v1/top").unwrap(), (TopBy::Granted, 20));
        assert_eq!(query("/v1/top?by=denied&n=1000").unwrap(), (TopBy::Denied, 1000));
        for (text, kind) in [
            ("/v1/top?by=cost", Kind::InvalidValue),
            ("/v1/top?n=0", Kind::InvalidValue),
            ("/v1/top?n=1001", Kind::InvalidValue),
            ("/v1/top?n=many", Kind::InvalidValue),
            ("/v1/top?limit=5", Kind::Malformed),
        ] {
            assert_eq!(query(text).unwrap_err().kind, kind, "{text}");
        }
    }
}
