//! Answers: JSON, and one form for every problem.

use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::content::Content;

/// An answer.
pub type Reply = Response<Content>;

/// The code of a [`problem`], kept in the answer's extensions so that it can be counted without reading the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemCode(pub &'static str);

#[derive(Serialize)]
struct Problem<'a> {
    code: &'a str,
    detail: &'a str,
}

/// Bytes set aside for an answer of which nothing is known: most fit, and the rest grows.
const ROOM_BYTES: usize = 512;

/// `value` as JSON. A value that has no JSON form (a map whose keys are no texts) is answered with 500.
pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    json_with_room(status, value, 0)
}

/// [`json`] of a value that holds `more_bytes` known to be long; room for them is made once rather than in steps.
pub fn json_with_room(status: StatusCode, value: &impl Serialize, more_bytes: usize) -> Reply {
    let mut body = Vec::with_capacity(ROOM_BYTES + more_bytes);
    match serde_json::to_writer(&mut body, value) {
        Ok(()) => json_bytes(status, body),
        Err(error) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the answer has no JSON form: {error}"))
        }
    }
}

/// `{"code","detail"}`: a word for programs and a sentence for people. Neither may hold a secret.
pub fn problem(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Reply {
    let detail = detail.into();
    // Two texts always have a JSON form.
    let body = serde_json::to_vec(&Problem { code, detail: &detail }).unwrap_or_default();
    let mut reply = json_bytes(status, body);
    reply.extensions_mut().insert(ProblemCode(code));
    reply
}

fn json_bytes(status: StatusCode, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Content::whole(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Says after how many seconds a new try makes sense
/// ([RFC 9110 §10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
pub fn with_retry_after(mut reply: Reply, seconds: u32) -> Reply {
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    reply
}

/// Says which methods the resource has, as a 405 must
/// ([RFC 9110 §15.5.6](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6)).
pub fn with_allow(mut reply: Reply, methods: &'static str) -> Reply {
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    reply
}

/// Ends the connection after this answer: what follows on it can't be trusted, or is not worth reading.
pub fn close(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::collections::HashMap;

    async fn text(reply: Reply) -> String {
        let bytes = reply.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_is_json_with_code_and_detail() {
        let reply = close(with_retry_after(problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "say \"when\""), 3));
        assert_eq!(reply.status(), 503);
        assert_eq!(reply.headers()["content-type"], "application/json");
        assert_eq!(reply.headers()["retry-after"], "3");
        assert_eq!(reply.headers()["connection"], "close");
        assert_eq!(reply.extensions().get::<ProblemCode>(), Some(&ProblemCode("busy")));
        assert_eq!(text(reply).await, r#"{"code":"busy","detail":"say \"when\""}"#);
    }

    #[tokio::test]
    async fn what_has_no_json_form_is_a_server_error() {
        let reply = json(StatusCode::OK, &HashMap::from([((1, 2), 3)]));
        assert_eq!(reply.status(), 500);
        assert_eq!(reply.extensions().get::<ProblemCode>(), Some(&ProblemCode("internal")));
    }

    #[test]
    fn a_405_names_the_methods() {
        let reply = with_allow(problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "no"), "POST");
        assert_eq!(reply.headers()["allow"], "POST");
    }
}
