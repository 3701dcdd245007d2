//! Stories of selectors.

use serde_json::json;
use stead_api::kinds;

use super::*;

#[test]
fn a_label_selector_selects_and_is_written_in_order() {
    for (text, written, yes, no) in [
        ("", "", json!({}), None),
        ("app=web", "app=web", json!({"app": "web"}), Some(json!({"app": "x"}))),
        ("app==web", "app==web", json!({"app": "web"}), Some(json!({}))),
        ("app!=web", "app!=web", json!({}), Some(json!({"app": "web"}))),
        ("b,a", "a,b", json!({"a": "", "b": ""}), Some(json!({"a": ""}))),
        ("!a", "!a", json!({}), Some(json!({"a": ""}))),
        ("a in (y, x)", "a in (x,y)", json!({"a": "x"}), Some(json!({}))),
        ("a notin (x,y)", "a notin (x,y)", json!({}), Some(json!({"a": "x"}))),
        ("a notin ()", "a notin ()", json!({"a": "x"}), Some(json!({"a": ""}))),
        ("a in (,x)", "a in (,x)", json!({"a": ""}), Some(json!({"a": "y"}))),
        ("app==", "app==", json!({"app": ""}), Some(json!({}))),
        ("n>5,n<7", "n>5,n<7", json!({"n": "6"}), Some(json!({"n": "7"}))),
        ("in in (in,notin)", "in in (in,notin)", json!({"in": "notin"}), Some(json!({}))),
        ("!app,app=web", "!app,app=web", json!({}), None),
    ] {
        let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.to_string(), written, "{text}");
        if text != "!app,app=web" {
            assert!(selector.matches_labels(&yes), "{text}");
        }
        assert!(no.is_none_or(|no| !selector.matches_labels(&no)), "{text}");
    }
    assert!(!Selector::parse("!app,app=web").is_ok_and(|s| s.matches_labels(&json!({"app": "web"}))));
}

#[test]
fn a_label_selector_that_is_not_well_formed_is_refused_in_upstreams_words() {
    for (text, want) in [
        ("app in web", "unable to parse requirement: found 'web' expected: '('"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("=web", "found '=', expected: !, identifier, or 'end of string'"),
        ("app=we b", "found 'b', expected: ',' or 'end of string'"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        (
            "app>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(Selector::parse(text), Err(want.to_owned()), "{text}");
    }
    assert!(Selector::parse("a/b/c").is_err_and(|e| e.contains("a valid label key")));
}

#[test]
fn selector_objects_select_as_their_texts_do() {
    let object = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["b", "a"]}, {"key": "x", "operator": "DoesNotExist"}]});
    let selector = Selector::from_object(&object).expect("well formed");
    assert_eq!(selector.to_string(), "app=web,tier in (a,b),!x");
    assert!(selector.matches_labels(&json!({"app": "web", "tier": "a"})));
    assert!(!selector.matches_labels(&json!({"app": "web", "tier": "a", "x": ""})));
    assert!(Selector::from_object(&json!({})).is_ok_and(|s| s.is_everything() && s.matches_labels(&json!(null))));
    assert!(Selector::from_object(&json!(null)).is_ok_and(|s| !s.is_everything() && !s.matches_labels(&json!({}))));
    assert_eq!(
        Selector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "Frob"}]})),
        Err("\"Frob\" is not a valid label selector operator".to_owned())
    );
    let plain = Selector::from_map([("b", "2"), ("a", "1")]);
    assert_eq!(plain.to_string(), "a=1,b=2");
}

#[test]
fn field_selectors_know_the_fields_of_their_kind() {
    let pod = kinds::by_name("pods").expect("a kind");
    let object = json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": {"nodeName": "a,b"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}]}});
    for (text, want) in [
        ("", true),
        ("metadata.name=web-0,status.phase==Running", true),
        ("metadata.name!=web-0", false),
        ("status.phase=", false),
        ("status.nominatedNodeName=", true),
        ("spec.host=a\\,b", true),
        ("spec.hostNetwork=false", true),
        ("status.podIPs=10.0.0.1\\,::1", true),
    ] {
        let selector = FieldSelector::parse(pod, text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&object), want, "{text}");
    }
    let selector = FieldSelector::parse(pod, "spec.nodeName=a\\,b").expect("well formed");
    assert_eq!((selector.exact("spec.nodeName"), selector.to_string().as_str()), (Some("a,b"), "spec.nodeName=a\\,b"));
    let event = kinds::by_api_version("events.k8s.io/v1", "Event").expect("a kind");
    let selector = FieldSelector::parse(event, "regarding.name=x").expect("well formed");
    assert!(selector.matches(&json!({"involvedObject": {"name": "x"}})));
}

#[test]
fn a_field_selector_that_is_not_understood_is_refused_in_upstreams_words() {
    for (kind, text, want) in [
        ("pods", "spec.nothere=1", "field label not supported: spec.nothere"),
        (
            "sts",
            "spec.replicas=1",
            "\"spec.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("pods", "x", "invalid selector: 'x'; can't understand 'x'"),
        ("jobs", "spec.x=1", "field label \"spec.x\" not supported for Job"),
        ("pods", "metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ("pods", "metadata.name=a\\b", "invalid field selector: invalid escape sequence: \\b"),
    ] {
        let kind = kinds::by_name(kind).expect("a kind");
        assert_eq!(FieldSelector::parse(kind, text), Err(want.to_owned()), "{text}");
    }
}
