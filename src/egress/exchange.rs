//! One request and its response over an open connection, within limits that hold whatever the other side sends.
//!
//! Redirects are not followed and bodies not decompressed: a response is its status, the head, and the first bytes as they
//! came.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::sync::Notify;

use super::connection::{Connection, Sender};
use super::request::Outgoing;
use super::trace::{Failure, Phase, Trace};
use crate::core::attempt::FailureKind;
use crate::core::limits::DeliveryLimits;
use crate::core::url::EndpointUrl;

/// Informational (1xx) responses before the real one. Nobody needs more than a few, and hyper reads on for ever.
const INFORMATIONAL_MAX: u32 = 16;

/// Header fields of a response that are kept.
const HEADERS_KEPT_MAX: usize = 100;

/// Characters of an error's text that are kept.
const ERROR_TEXT_MAX: usize = 300;

/// A response came, and what of it decides what follows.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The field as it came.
    pub(super) retry_after: Option<HeaderValue>,
    /// The response was read to its end, so another request may follow on the connection.
    pub(super) is_complete: bool,
}

/// Sends the request and reads the response.
pub(super) async fn exchange(
    connection: &mut Connection,
    url: &EndpointUrl,
    outgoing: Outgoing,
    limits: &DeliveryLimits,
    trace: &mut Trace<'_>,
) -> Result<Answer, Failure> {
    trace.begin(Phase::Head);
    let response = send(connection, url, outgoing).await?;
    trace.head_came();
    let (head, body) = response.into_parts();
    // hyper has counted an HTTP/1.1 head already, with its separators; this is for HTTP/2.
    let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head_bytes > limits.response_header_bytes_max {
        return Err(head_too_large(limits.response_header_bytes_max));
    }
    for (name, value) in head.headers.iter().take(HEADERS_KEPT_MAX) {
        trace.response_headers.push(name.as_str(), value.as_bytes());
    }
    let ends_with_connection = ends_with_connection(head.version, &head.headers);
    let is_complete = read_body(body, ends_with_connection, limits, trace).await?;
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: head.headers.get(RETRY_AFTER).cloned(),
        // After 101 the connection speaks something else, which nobody asked for.
        is_complete: is_complete && head.status != StatusCode::SWITCHING_PROTOCOLS,
    })
}

fn head_too_large(max: usize) -> Failure {
    Failure::new(FailureKind::Protocol, format!("expected a response head of at most {max} bytes, got more"))
}

async fn send(
    connection: &mut Connection,
    url: &EndpointUrl,
    outgoing: Outgoing,
) -> Result<Response<Incoming>, Failure> {
    let is_h2 = matches!(connection.sender, Sender::H2(_));
    let mut request =
        request(url, outgoing, is_h2).map_err(|error| Failure::new(FailureKind::Protocol, error.to_string()))?;
    let too_many = Arc::new(Notify::new());
    let (count, signal) = (AtomicU32::new(0), Arc::clone(&too_many));
    hyper::ext::on_informational(&mut request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) >= INFORMATIONAL_MAX {
            signal.notify_one();
        }
    });
    let response = async {
        match &mut connection.sender {
            Sender::H1(sender) => sender.send_request(request).await,
            Sender::H2(sender) => sender.send_request(request).await,
        }
    };
    tokio::select! {
        // The flood first: while it lasts, there is no response.
        biased;
        () = too_many.notified() => {
            let detail = format!("expected a response, got more than {INFORMATIONAL_MAX} informational ones (1xx)");
            Err(Failure::new(FailureKind::Protocol, detail))
        }
        response = response => response.map_err(|error| {
            let failure = failure_of(&error);
            // Whoever answers nonsense has answered; anything else may be a connection closed while it was idle.
            Failure { may_be_stale: !matches!(failure.kind, FailureKind::Protocol), ..failure }
        }),
    }
}

/// HTTP/1.1 names the host in a header, HTTP/2 in the address.
fn request(url: &EndpointUrl, outgoing: Outgoing, is_h2: bool) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let bytes = outgoing.body.len();
    let mut request = Request::new(Full::new(outgoing.body));
    *request.method_mut() = Method::POST;
    *request.headers_mut() = outgoing.headers;
    // hyper leaves it out for an empty body, but a POST must say that nothing follows (RFC 9110 §8.6).
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    let uri = Uri::builder().path_and_query(url.target());
    *request.uri_mut() = if is_h2 {
        uri.scheme("https").authority(url.authority()).build()?
    } else {
        request.headers_mut().insert(HOST, HeaderValue::from_str(&url.authority())?);
        uri.build()?
    };
    Ok(request)
}

/// Whether only the end of the connection ends the body ([RFC 9112 §6.3](https://www.rfc-editor.org/rfc/rfc9112#section-6.3)).
fn ends_with_connection(version: Version, headers: &HeaderMap) -> bool {
    version <= Version::HTTP_11 && !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING)
}

/// Reads a body as far as the limits allow; `false` when more may follow.
async fn read_body(
    mut body: Incoming,
    ends_with_connection: bool,
    limits: &DeliveryLimits,
    trace: &mut Trace<'_>,
) -> Result<bool, Failure> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let data = match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => data,
            // Trailers: nothing a webhook's sender has to know.
            Ok(Err(_)) => continue,
            // Common servers end TLS without saying goodbye. A cut-off body would look the same, but only the status counts.
            Err(error) if ends_with_connection && is_eof(&error) => return Ok(false),
            Err(error) => return Err(failure_of(&error)),
        };
        read += data.len();
        // What is past the kept part is still read, up to a limit, since a connection read to its end can be used again.
        let room = limits.response_bytes_kept - trace.response.len().min(limits.response_bytes_kept);
        trace.response.extend_from_slice(&data[..room.min(data.len())]);
        trace.truncated |= data.len() > room;
        if read > limits.response_bytes_read {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an error of hyper's says about the other side.
pub(super) fn failure_of(error: &hyper::Error) -> Failure {
    // hyper hands on what TLS and the parsers of chunks found wrong as I/O errors, so the innermost one tells.
    let io_kind = io_errors(error).last().map(io::Error::kind);
    let is_tls = io_errors(error).any(|e| e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()));
    let kind = if is_tls {
        FailureKind::Tls
    } else if error.is_parse()
        || error.is_user()
        || matches!(io_kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput))
    {
        FailureKind::Protocol
    } else {
        FailureKind::Reset
    };
    Failure::new(kind, error_text(error))
}

fn is_eof(error: &hyper::Error) -> bool {
    io_errors(error).any(|e| e.kind() == io::ErrorKind::UnexpectedEof)
}

fn io_errors(error: &hyper::Error) -> impl Iterator<Item = &io::Error> {
    chain(error).filter_map(|e| e.downcast_ref())
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e: &&'e (dyn Error + 'static)| (*e).source())
}

/// An error with its causes, for people. Causes that an error quotes itself are not said twice.
pub(super) fn error_text(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error).map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.chars().take(ERROR_TEXT_MAX).collect()
}
