//! Who a container's process runs as: `/etc/passwd` and `/etc/group` of its own root file system.

use std::collections::BTreeSet;

use crate::engine::Security;

/// Numeric identity of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Resolves the user: the security context's numbers, else the image's `user[:group]`.
///
/// # Errors
/// A name that the image's files do not have, in runc's words.
pub(crate) fn resolve(image_user: &str, security: &Security, passwd: &str, group: &str) -> Result<Identity, String> {
    let (image_name, image_group) = image_user.split_once(':').unwrap_or((image_user, ""));
    let wanted = security.run_as_user.map_or_else(|| image_name.to_owned(), |uid| uid.to_string());
    let accounts: Vec<Account<'_>> = passwd.lines().filter_map(account).collect();
    let number: Option<u32> = if wanted.is_empty() { Some(0) } else { wanted.parse().ok() };
    let found = accounts
        .iter()
        .find(|account| number.is_none() && account.name == wanted)
        .or_else(|| accounts.iter().find(|account| Some(account.uid) == number));
    let uid = match (found, number) {
        (Some(account), _) => account.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(format!("unable to find user {wanted}: no matching entries in passwd file")),
    };
    let image_gid = if security.run_as_user.is_none() { named_group(image_group, group)? } else { None };
    let own_gid = found.map_or(0, |account| account.gid);
    let gid = match security.run_as_group {
        Some(gid) => id(gid)?,
        None => image_gid.unwrap_or(own_gid),
    };
    let mut groups: BTreeSet<u32> =
        security.supplemental_groups.iter().map(|gid| id(*gid)).collect::<Result<_, _>>()?;
    if let Some(account) = found.filter(|_| image_group.is_empty() || security.run_as_user.is_some()) {
        groups.extend(memberships(account.name, group));
    }
    groups.insert(gid);
    let home = found.map(|account| account.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(Identity { uid, gid, groups: groups.into_iter().collect(), home: home.to_owned() })
}

fn id(number: i64) -> Result<u32, String> {
    i32::try_from(number)
        .ok()
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| format!("user and group numbers must be between 0 and {}, not {number}", i32::MAX))
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1).unwrap_or("");
    Some(Account { name, uid, gid, home })
}

fn named_group(wanted: &str, group: &str) -> Result<Option<u32>, String> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let by_name = group.lines().filter_map(group_line).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
    match by_name.or_else(|| wanted.parse().ok()) {
        Some(gid) => Ok(Some(gid)),
        None => Err(format!("unable to find group {wanted}: no matching entries in group file")),
    }
}

fn memberships<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    let member = move |members: &str| members.split(',').any(|member| member.trim() == user);
    group.lines().filter_map(group_line).filter(move |(_, _, members)| member(members)).map(|(_, gid, _)| gid)
}

fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some((name, gid, fields.next().unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,redis\nredis:x:998:\nstaff:x:50:redis\n";

    #[test]
    fn identities() {
        let security = |user, group, groups: &[i64]| Security {
            run_as_user: user,
            run_as_group: group,
            supplemental_groups: groups.to_vec(),
            ..Security::default()
        };
        let plain = security(None, None, &[]);
        type Found<'a> = Result<(u32, u32, Vec<u32>, &'a str), &'a str>;
        let stories: Vec<(&str, Security, Found<'_>)> = vec![
            ("", plain.clone(), Ok((0, 0, vec![0, 10], "/root"))),
            ("redis", plain.clone(), Ok((999, 998, vec![10, 50, 998], "/data"))),
            ("999", plain.clone(), Ok((999, 998, vec![10, 50, 998], "/data"))),
            ("redis:staff", plain.clone(), Ok((999, 50, vec![50], "/data"))),
            ("1234", plain.clone(), Ok((1234, 0, vec![0], "/"))),
            ("1234:77", plain.clone(), Ok((1234, 77, vec![77], "/"))),
            ("redis", security(Some(1000), None, &[2000]), Ok((1000, 0, vec![0, 2000], "/"))),
            ("root", security(Some(999), Some(5), &[7]), Ok((999, 5, vec![5, 7, 10, 50], "/data"))),
            ("nosuch", plain.clone(), Err("unable to find user nosuch: no matching entries in passwd file")),
            ("redis:nosuch", plain, Err("unable to find group nosuch: no matching entries in group file")),
        ];
        for (user, security, expected) in stories {
            let found = resolve(user, &security, PASSWD, GROUP);
            let found =
                found.as_ref().map(|i| (i.uid, i.gid, i.groups.clone(), i.home.as_str())).map_err(String::as_str);
            assert_eq!(found, expected, "{user} {security:?}");
        }
    }
}
