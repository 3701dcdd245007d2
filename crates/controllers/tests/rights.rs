//! Every controller has an account with a role: nobody writes in the name of an administrator.

use std::collections::BTreeSet;

use stead_controllers::registry;

#[test]
fn every_controller_has_an_account_with_rights() {
    let objects = stead_admission::authz::bootstrap::objects();
    let bound: BTreeSet<&str> = objects
        .iter()
        .flat_map(|object| object["subjects"].as_array().into_iter().flatten())
        .filter(|subject| subject["kind"] == "ServiceAccount" && subject["namespace"] == "kube-system")
        .filter_map(|subject| subject["name"].as_str())
        .collect();
    let without: Vec<&str> =
        registry::all().into_iter().map(|entry| entry.account).filter(|account| !bound.contains(account)).collect();
    assert_eq!(without, [""; 0], "accounts without a binding");
}
