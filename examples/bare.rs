//! What `tests/bench` measures the HTTP API beside: the same stack (hyper on tokio) that reads a request and its body, and
//! answers a constant of a check's length and headers. What a check costs beyond this is ours.
//!
//! `bare ADDRESS` or `bare PATH` (a Unix socket)

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// As the daemon's.
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &[u8] = br#"{"allowed":true,"limit":"api","key":"key:000000000042","cost":1,"capacity":1000000,"remaining":999999,"retry_after_ms":0,"reset_after_ms":1,"delay_ms":0,"reason":null}"#;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // a body that breaks off is answered all the same: nothing here depends on it
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("ratelimit-policy"), HeaderValue::from_static("\"api\";q=1000000;w=1"));
    headers.insert(HeaderName::from_static("ratelimit"), HeaderValue::from_static("\"api\";r=999999;t=1"));
    Ok(response)
}

fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::args().nth(1).ok_or("bare ADDRESS or bare PATH")?;
    if listen.contains('/') {
        let listener = UnixListener::bind(listen)?;
        loop {
            serve(listener.accept().await?.0);
        }
    }
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        serve(stream);
    }
}
