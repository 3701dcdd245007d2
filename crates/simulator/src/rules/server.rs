//! The server: what was written stays written, whoever writes next.

use serde_json::Value;

/// A write of an object that is there already: what is never taken back. Whoever writes over what it has not seen does.
pub(crate) fn undone(was: &Value, is: &Value) -> Option<String> {
    let (before, now) = (&was["metadata"], &is["metadata"]);
    if before["uid"] != now["uid"] {
        return Some("becomes another object without having been removed".to_owned());
    }
    if before["deletionTimestamp"].is_string() && now["deletionTimestamp"].is_null() {
        return Some("is no longer told to end".to_owned());
    }
    for (what, was, is) in [
        ("generation", &before["generation"], &now["generation"]),
        ("observed generation", &was["status"]["observedGeneration"], &is["status"]["observedGeneration"]),
    ] {
        if was.as_u64() > is.as_u64() {
            return Some(format!("goes back from {what} {was} to {is}"));
        }
    }
    let fixed = [("node", "nodeName"), ("volume", "volumeName")];
    let lost =
        fixed.iter().find(|(_, field)| was["spec"][*field].is_string() && was["spec"][*field] != is["spec"][*field]);
    lost.map(|(what, field)| format!("had the {what} {} and now has {}", was["spec"][*field], is["spec"][*field]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_not_taken_back() {
        let pod =
            json!({"metadata": {"uid": "a", "generation": 2, "deletionTimestamp": "t"}, "spec": {"nodeName": "n"}});
        assert_eq!(undone(&pod, &pod), None);
        for (change, expected) in [
            (json!({"uid": "b", "generation": 2, "deletionTimestamp": "t"}), "another object"),
            (json!({"uid": "a", "generation": 2}), "no longer told to end"),
            (json!({"uid": "a", "generation": 1, "deletionTimestamp": "t"}), "goes back"),
        ] {
            let mut now = pod.clone();
            now["metadata"] = change;
            assert!(undone(&pod, &now).is_some_and(|why| why.contains(expected)), "{expected}");
        }
        let unbound = json!({"metadata": pod["metadata"], "spec": {}});
        assert!(undone(&pod, &unbound).is_some_and(|why| why.contains("had the node")));
        assert_eq!(undone(&unbound, &pod), None);
    }
}
