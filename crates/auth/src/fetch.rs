//! One GET of a small document.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{ACCEPT, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use url::Url;

use crate::error::KeyError;
use crate::key_source::KEYS_BYTES_MAX;

/// All of it, with connecting and TLS, may take so long.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// Fetches `url`, with the certificate authorities of the system. Redirects are not followed: they could lead out of
/// `https`, or to somebody else.
pub(crate) async fn get(url: &Url) -> Result<Bytes, KeyError> {
    let failed = |reason: String| KeyError::Fetch { url: url.to_string(), reason };
    match tokio::time::timeout(FETCH_MAX, exchange(url)).await {
        Ok(Err(Failure::TooLarge)) => Err(KeyError::TooLarge { place: url.to_string(), max: KEYS_BYTES_MAX }),
        Ok(Err(Failure::Other(reason))) => Err(failed(reason)),
        Ok(Ok(body)) => Ok(body),
        Err(_) => Err(failed(format!("no answer within {} s", FETCH_MAX.as_secs()))),
    }
}

enum Failure {
    TooLarge,
    Other(String),
}

async fn exchange(url: &Url) -> Result<Bytes, Failure> {
    let other = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Failure::Other(text)
    };
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| other(&error))?
        .https_or_http()
        .enable_http1()
        .build();
    // A connection a fetch: minutes lie between them.
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(url.as_str())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("walcast/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| other(&error))?;
    let answer = client.request(request).await.map_err(|error| other(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(Failure::Other(format!("it answered {}", answer.status())));
    }
    match Limited::new(answer.into_body(), KEYS_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::TooLarge),
        Err(error) => Err(other(error.as_ref())),
    }
}
