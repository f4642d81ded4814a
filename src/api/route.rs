//! The table of routes, and finding the one that a request means. The table is data, so that the OpenAPI document can be
//! held against it.
//!
//! **Invariant:** nothing under `GET` changes anything.

use std::borrow::Cow;

use hyper::Method;

/// The longest path parameter, in bytes: longer than any name or id.
const PARAMETER_BYTES_MAX: usize = 512;

/// One line of the table.
#[derive(Debug)]
pub(super) struct Route {
    /// The method.
    pub(super) method: Method,
    /// The path; `{name}` stands for one part.
    pub(super) path: &'static str,
    /// What answers.
    pub(super) target: Target,
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// `GET /healthz`
    Health,
    /// `GET /readyz`
    Ready,
    /// `GET /metrics`
    Metrics,
    /// `GET /api/v1/openapi.json`
    OpenApi,
    /// `POST …/msg`
    Publish,
    /// `GET …/msg`
    Messages,
    /// `GET …/msg/{id}`
    Message,
    /// `GET …/msg/{id}/delivery`
    Deliveries,
    /// `GET …/msg/{id}/attempt`
    Attempts,
    /// `DELETE …/msg/{id}/content`
    Erase,
    /// `GET /api/v1/dead-letter`
    DeadLetters,
    /// `POST /api/v1/replay`
    Replay,
    /// `GET /api/v1/endpoint`
    Endpoints,
    /// `POST /api/v1/endpoint/{endpoint}/enable`
    Enable,
    /// `POST /api/v1/endpoint/{endpoint}/disable`
    Disable,
    /// `GET /api/v1/source`
    Sources,
    /// `POST /api/v1/backup`
    Backup,
}

impl Target {
    /// Whether it answers without a token: what supervisors and scrapers ask.
    pub(super) const fn is_public(self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::Metrics)
    }
}

const fn route(method: Method, path: &'static str, target: Target) -> Route {
    Route { method, path, target }
}

/// Everything that the management listener answers.
pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/healthz", Target::Health),
    route(Method::GET, "/readyz", Target::Ready),
    route(Method::GET, "/metrics", Target::Metrics),
    route(Method::GET, "/api/v1/openapi.json", Target::OpenApi),
    route(Method::POST, "/api/v1/app/{app}/msg", Target::Publish),
    route(Method::GET, "/api/v1/app/{app}/msg", Target::Messages),
    route(Method::GET, "/api/v1/app/{app}/msg/{id}", Target::Message),
    route(Method::GET, "/api/v1/app/{app}/msg/{id}/delivery", Target::Deliveries),
    route(Method::GET, "/api/v1/app/{app}/msg/{id}/attempt", Target::Attempts),
    route(Method::DELETE, "/api/v1/app/{app}/msg/{id}/content", Target::Erase),
    route(Method::GET, "/api/v1/dead-letter", Target::DeadLetters),
    route(Method::POST, "/api/v1/replay", Target::Replay),
    route(Method::GET, "/api/v1/endpoint", Target::Endpoints),
    route(Method::POST, "/api/v1/endpoint/{endpoint}/enable", Target::Enable),
    route(Method::POST, "/api/v1/endpoint/{endpoint}/disable", Target::Disable),
    route(Method::GET, "/api/v1/source", Target::Sources),
    route(Method::POST, "/api/v1/backup", Target::Backup),
];

/// What a method and path mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'p> {
    /// This target, with the path's parameters in their order.
    Target(Target, Vec<Cow<'p, str>>),
    /// The path is known, for these methods.
    OtherMethods(Vec<&'static str>),
    /// No such path.
    Nothing,
}

/// Looks a request up in the table. HEAD is GET, whose body the server leaves out.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    // Methods compare faster than paths, so the paths of others are looked at only when there is nothing else to say.
    let target = |route: &Route| Some(Found::Target(route.target, parameters(route.path, path)?));
    let found = ROUTES.iter().filter(|route| route.method == *method).find_map(target);
    found.unwrap_or_else(|| {
        let at_path = ROUTES.iter().filter(|route| parameters(route.path, path).is_some());
        let others: Vec<_> = at_path.map(|route| route.method.as_str()).collect();
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    })
}

/// The parts of `path` that stand where `pattern` has parameters; `None` when it does not match.
fn parameters<'p>(mut pattern: &str, mut path: &'p str) -> Option<Vec<Cow<'p, str>>> {
    let mut parameters = Vec::new();
    while let Some((before, rest)) = pattern.split_once('{') {
        let (part, after) = first_part(path.strip_prefix(before)?);
        parameters.push(percent_decode(part).filter(|p| !p.is_empty() && p.len() <= PARAMETER_BYTES_MAX)?);
        (pattern, path) = (first_part(rest).1, after);
    }
    (pattern == path).then_some(parameters)
}

/// A path up to its first slash, and the rest.
fn first_part(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// Decodes `%41`; `None` for a lone `%` and for bytes that are not UTF-8 or are control characters.
pub(super) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
            bytes.push((digit()? * 16 + digit()?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control)).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(target: Target, parameters: &[&'static str]) -> Found<'static> {
        Found::Target(target, parameters.iter().map(|p| Cow::Borrowed(*p)).collect())
    }

    #[test]
    fn requests_find_their_target() {
        assert_eq!(find(&Method::POST, "/api/v1/app/default/msg"), target(Target::Publish, &["default"]));
        assert_eq!(find(&Method::GET, "/api/v1/app/a%20b/msg/x"), target(Target::Message, &["a b", "x"]));
        assert_eq!(find(&Method::HEAD, "/healthz"), target(Target::Health, &[]));
        let methods = Found::OtherMethods(vec!["POST", "GET"]);
        assert_eq!(find(&Method::DELETE, "/api/v1/app/default/msg"), methods);
        assert_eq!(find(&Method::GET, "/api/v1/replay"), Found::OtherMethods(vec!["POST"]));
    }

    #[test]
    fn other_paths_are_nothing() {
        for path in [
            "",
            "/",
            "/api/v1",
            "/healthz/",
            "//healthz",
            "/HEALTHZ",
            "/api/v1/app//msg",
            "/api/v1/app/a/msg/",
            "/api/v1/app/%/msg",
            "/api/v1/app/%4/msg",
            "/api/v1/app/%zz/msg",
            "/api/v1/app/%ff/msg",
            "/api/v1/app/%00/msg",
            "/api/v1/app/{app}/msg/x/y",
        ] {
            assert_eq!(find(&Method::GET, path), Found::Nothing, "{path}");
        }
        assert_eq!(find(&Method::GET, &format!("/api/v1/app/{}/msg", "a".repeat(513))), Found::Nothing);
    }

    #[test]
    fn only_probes_and_metrics_are_public() {
        for route in ROUTES {
            assert_eq!(route.target.is_public(), !route.path.starts_with("/api/"), "{}", route.path);
        }
    }

    #[test]
    fn the_openapi_document_has_exactly_the_routes_of_the_table() {
        let document: serde_json::Value = serde_json::from_str(crate::api::ops::OPENAPI).unwrap();
        let mut described = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let shared = item["parameters"].as_array().cloned().unwrap_or_default();
            for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
                let is_public = operation["security"].as_array().is_some_and(Vec::is_empty);
                described.push((method.to_ascii_uppercase(), path.clone(), is_public));
                let declared: Vec<_> =
                    shared.iter().map(|p| resolve(&document, p)).filter(|p| p["in"] == "path").collect();
                let in_path = path.split('/').filter(|part| part.starts_with('{')).map(|p| p.trim_matches(['{', '}']));
                assert!(in_path.eq(declared.iter().map(|p| p["name"].as_str().unwrap())), "{method} {path}");
                assert!(operation["operationId"].is_string() && operation["responses"].is_object(), "{method} {path}");
            }
        }
        let row = |r: &Route| (r.method.to_string(), r.path.to_owned(), r.target.is_public());
        let mut expected: Vec<_> = ROUTES.iter().map(row).collect();
        described.sort();
        expected.sort();
        assert_eq!(described, expected);
    }

    #[test]
    fn every_reference_of_the_openapi_document_leads_somewhere() {
        fn walk(document: &serde_json::Value, value: &serde_json::Value) {
            match value {
                serde_json::Value::Object(map) => {
                    assert!(!resolve(document, value).is_null(), "{value}");
                    map.values().for_each(|value| walk(document, value));
                }
                serde_json::Value::Array(list) => list.iter().for_each(|value| walk(document, value)),
                _ => {}
            }
        }
        let document = serde_json::from_str(crate::api::ops::OPENAPI).unwrap();
        walk(&document, &document);
    }

    fn resolve<'d>(document: &'d serde_json::Value, value: &'d serde_json::Value) -> &'d serde_json::Value {
        match value["$ref"].as_str() {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap_or(&serde_json::Value::Null),
            None => value,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "\\PC{0,20}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(percent_decode(&encoded), Some(Cow::Owned(text)));
        }

        #[test]
        fn any_path_is_looked_up_without_panic(path in "[/a-z%0-9{}.]{0,60}") {
            let _ = find(&Method::GET, &path);
        }
    }
}
