package audit

// FieldKey names a field of an event. The numbers are stored in queues: they never change their meaning and are never
// used again for another field.
type FieldKey uint16

// The field keys. KeyAttribute stands for every field of the vendor's own; its name is in Field.Name.
const (
	KeyAttribute FieldKey = 1

	KeyName             FieldKey = 2
	KeyCategory         FieldKey = 3
	KeyReason           FieldKey = 4
	KeyMessage          FieldKey = 5
	KeyResultCode       FieldKey = 6
	KeyTimeOriginal     FieldKey = 7
	KeySeverityOriginal FieldKey = 8
	KeyAction           FieldKey = 9

	KeyActorID       FieldKey = 10
	KeyActorName     FieldKey = 11
	KeyActorFullName FieldKey = 12
	KeyActorDomain   FieldKey = 13
	KeyActorType     FieldKey = 14

	KeyTargetType FieldKey = 20
	KeyTargetID   FieldKey = 21
	KeyTargetName FieldKey = 22

	KeyClientIP        FieldKey = 30
	KeyClientHost      FieldKey = 31
	KeyClientUserAgent FieldKey = 32

	KeyHostName FieldKey = 40
	KeyHostIP   FieldKey = 41
	KeyHostID   FieldKey = 42

	KeySessionID   FieldKey = 50
	KeyAccountID   FieldKey = 55
	KeyGroupID     FieldKey = 60
	KeyGroupName   FieldKey = 61
	KeyFileName    FieldKey = 65
	KeyFilePath    FieldKey = 66
	KeyPackageID   FieldKey = 70
	KeyTenantName  FieldKey = 75
	KeyAuthMethod  FieldKey = 80
	KeyCommandLine FieldKey = 85
	KeyAppName     FieldKey = 90
	KeyModule      FieldKey = 91
	KeyEnvironment FieldKey = 92

	KeySourcePath   FieldKey = 100
	KeySourceOffset FieldKey = 101
	KeySourceRecord FieldKey = 102
	KeySourcePart   FieldKey = 103
	KeySourcePeer   FieldKey = 104

	KeySyslogFacility FieldKey = 110
	KeySyslogProcID   FieldKey = 111
	KeySyslogMsgID    FieldKey = 112
)

// FieldType says what a field's value must look like to be sent under its CEF key.
type FieldType uint8

// The field types.
const (
	TypeText FieldType = iota
	TypeInteger
	TypeIP
)

// FieldInfo is one row of the one table of fields: our name and what each format calls it. An empty cell means that the
// format has no place of its own for it.
type FieldInfo struct {
	Key      FieldKey
	Name     string    // in YAML, conditions and native JSON
	Type     FieldType // TypeIP: CEF, LEEF and ECS address keys take valid addresses only
	CEF      string    // CEF dictionary key
	CEFLabel string    // the text of the key's Label companion, if it needs one
	CEFLimit int       // characters, before escaping; 0 = not sent in CEF
	LEEF     string
	ECS      string
	OCSF     string // attribute path; depends on the class
	Doc      string
}

// Fields returns the table, in the order of the keys. The caller must not change it.
func Fields() []FieldInfo { return fieldTable[:] }

// fieldTable is the only place that says how a field is called in a format. Limits: CEF v27 dictionary. Only the custom
// strings have labels; they are the same for all products: session, account, entity, node, tenant, and the method of
// authentication; cn1 is the event's number in the log, cn2 the vendor's result code if it is an integer.
var fieldTable = [...]FieldInfo{
	{Key: KeyName, Name: "name", Doc: "what happened, one fixed English text per class"},
	{Key: KeyCategory, Name: "category", CEF: "cat", CEFLimit: 1023, LEEF: "cat", Doc: "authentication, iam, session, file …"},
	{Key: KeyReason, Name: "reason", CEF: "reason", CEFLimit: 1023, LEEF: "reason", ECS: "event.reason", OCSF: "status_detail", Doc: "why it failed, in the vendor's words or the catalogue's"},
	{Key: KeyMessage, Name: "message", CEF: "msg", CEFLimit: 1023, LEEF: "msg", ECS: "message", OCSF: "message", Doc: "human text of the record"},
	{Key: KeyResultCode, Name: "result.code", Type: TypeInteger, CEF: "cn2", CEFLabel: "ResultCode", CEFLimit: 20, LEEF: "resultCode", OCSF: "status_code", Doc: "the vendor's result code, as text"},
	{Key: KeyTimeOriginal, Name: "time_original", OCSF: "metadata.original_time", Doc: "the text that the event time was read from"},
	{Key: KeySeverityOriginal, Name: "severity_original", ECS: "log.level", Doc: "the vendor's own word for the severity"},
	{Key: KeyAction, Name: "action", CEF: "act", CEFLimit: 63, LEEF: "action", ECS: "event.action", Doc: "the vendor's own word for the action"},
	{Key: KeyActorID, Name: "actor.id", CEF: "suid", CEFLimit: 1023, LEEF: "actorId", ECS: "user.id", OCSF: "actor.user.uid", Doc: "who did it: the vendor's id"},
	{Key: KeyActorName, Name: "actor.name", CEF: "suser", CEFLimit: 1023, LEEF: "usrName", ECS: "user.name", OCSF: "actor.user.name", Doc: "who did it: account name"},
	{Key: KeyActorFullName, Name: "actor.full_name", LEEF: "actorFullName", ECS: "user.full_name", OCSF: "actor.user.full_name", Doc: "who did it: the person's name"},
	{Key: KeyActorDomain, Name: "actor.domain", CEF: "sntdom", CEFLimit: 255, LEEF: "domain", ECS: "user.domain", OCSF: "actor.user.domain", Doc: "Windows or directory domain of the actor"},
	{Key: KeyActorType, Name: "actor.type", CEF: "spriv", CEFLimit: 1023, LEEF: "actorType", Doc: "user, guest, admin, system, anonymous, host_user"},
	{Key: KeyTargetType, Name: "target.type", CEF: "cs3", CEFLabel: "Entity", CEFLimit: 4000, LEEF: "entity", OCSF: "entity.type", Doc: "kind of thing that it was done to"},
	{Key: KeyTargetID, Name: "target.id", CEF: "duid", CEFLimit: 1023, LEEF: "targetId", ECS: "user.target.id", OCSF: "user.uid", Doc: "whom or what it was done to: the vendor's id"},
	{Key: KeyTargetName, Name: "target.name", CEF: "duser", CEFLimit: 1023, LEEF: "targetName", ECS: "user.target.name", OCSF: "user.name", Doc: "whom or what it was done to: name"},
	{Key: KeyClientIP, Name: "client.ip", Type: TypeIP, CEF: "src", CEFLimit: 45, LEEF: "src", ECS: "source.ip", OCSF: "src_endpoint.ip", Doc: "address that the actor came from; IPv6 goes to c6a2 in CEF"},
	{Key: KeyClientHost, Name: "client.host", CEF: "shost", CEFLimit: 1023, LEEF: "identHostName", ECS: "source.domain", OCSF: "src_endpoint.hostname", Doc: "computer that the actor came from"},
	{Key: KeyClientUserAgent, Name: "client.user_agent", CEF: "requestClientApplication", CEFLimit: 1023, LEEF: "userAgent", ECS: "user_agent.original", OCSF: "http_request.user_agent", Doc: "the client's program"},
	{Key: KeyHostName, Name: "host.name", CEF: "dvchost", CEFLimit: 100, LEEF: "hostName", ECS: "host.name", OCSF: "device.hostname", Doc: "machine that the event happened on or is about"},
	{Key: KeyHostIP, Name: "host.ip", Type: TypeIP, CEF: "dvc", CEFLimit: 45, LEEF: "hostIp", ECS: "host.ip", OCSF: "device.ip", Doc: "its address; IPv6 goes to c6a1 in CEF"},
	{Key: KeyHostID, Name: "host.id", CEF: "deviceExternalId", CEFLimit: 255, LEEF: "hostId", ECS: "host.id", OCSF: "device.uid", Doc: "its id with the vendor"},
	{Key: KeySessionID, Name: "session.id", CEF: "cs1", CEFLabel: "Session", CEFLimit: 4000, LEEF: "session", OCSF: "session.uid", Doc: "the vendor's session"},
	{Key: KeyAccountID, Name: "account.id", CEF: "cs2", CEFLabel: "Account", CEFLimit: 4000, LEEF: "accountName", ECS: "organization.id", OCSF: "metadata.tenant_uid", Doc: "the customer's account with the vendor"},
	{Key: KeyGroupID, Name: "group.id", LEEF: "groupID", ECS: "group.id", OCSF: "group.uid", Doc: "group that the event is about"},
	{Key: KeyGroupName, Name: "group.name", CEF: "dpriv", CEFLimit: 1023, LEEF: "identGrpName", ECS: "group.name", OCSF: "group.name", Doc: "its name"},
	{Key: KeyFileName, Name: "file.name", CEF: "fname", CEFLimit: 1023, LEEF: "fileName", ECS: "file.name", OCSF: "file.name", Doc: "file that the event is about"},
	{Key: KeyFilePath, Name: "file.path", CEF: "filePath", CEFLimit: 1023, LEEF: "filePath", ECS: "file.path", OCSF: "file.path", Doc: "its path"},
	{Key: KeyPackageID, Name: "package.id", CEF: "fileId", CEFLimit: 1023, LEEF: "packageId", OCSF: "file.uid", Doc: "package (SOFiE: zásilka) or recording that the event is about"},
	{Key: KeyTenantName, Name: "tenant.name", CEF: "cs5", CEFLabel: "Tenant", CEFLimit: 4000, LEEF: "realm", ECS: "organization.name", OCSF: "metadata.tenant_uid", Doc: "tenant of a shared installation"},
	{Key: KeyAuthMethod, Name: "auth.method", CEF: "cs6", CEFLabel: "AuthenticationMethod", CEFLimit: 4000, LEEF: "authMethod", OCSF: "auth_protocol", Doc: "how the actor proved who it is"},
	{Key: KeyCommandLine, Name: "process.command_line", CEF: "dproc", CEFLimit: 1023, LEEF: "command", ECS: "process.command_line", OCSF: "process.cmd_line", Doc: "program or command that was run"},
	{Key: KeyAppName, Name: "app.name", CEF: "destinationServiceName", CEFLimit: 1023, LEEF: "application", ECS: "service.name", OCSF: "service.name", Doc: "part of the product, or syslog APP-NAME"},
	{Key: KeyModule, Name: "module", CEF: "deviceFacility", CEFLimit: 1023, LEEF: "module", Doc: "module that wrote the record (portal, HOST, WEB_ADMIN)"},
	{Key: KeyEnvironment, Name: "environment", LEEF: "environment", ECS: "service.environment", Doc: "environment that the vendor names (live)"},
	{Key: KeySourcePath, Name: "source.path", ECS: "log.file.path", OCSF: "metadata.log_name", Doc: "file that the record was read from"},
	{Key: KeySourceOffset, Name: "source.offset", Type: TypeInteger, ECS: "log.offset", Doc: "byte at which it began there"},
	{Key: KeySourceRecord, Name: "source.record", Type: TypeInteger, Doc: "which record of the file it was, from 1"},
	{Key: KeySourcePart, Name: "source.part", Type: TypeInteger, Doc: "which part of a record that was too long, from 1"},
	{Key: KeySourcePeer, Name: "source.peer", Type: TypeIP, Doc: "address that sent the record to us"},
	{Key: KeySyslogFacility, Name: "syslog.facility", Type: TypeInteger, ECS: "log.syslog.facility.code", Doc: "RFC 5424 section 6.2.1, 0 to 23"},
	{Key: KeySyslogProcID, Name: "syslog.procid", ECS: "log.syslog.procid", Doc: "RFC 5424 section 6.2.6"},
	{Key: KeySyslogMsgID, Name: "syslog.msgid", ECS: "log.syslog.msgid", Doc: "RFC 5424 section 6.2.7"},
}

// fieldIndex maps a key to its row plus one, so that a lookup is one array access. The last key is small by design.
var fieldIndex = func() (index [KeySyslogMsgID + 1]uint8) {
	for i := range fieldTable {
		index[fieldTable[i].Key] = uint8(i + 1)
	}
	return index
}()

// Info returns the key's row of the table, or nil for KeyAttribute and for numbers that no field has.
func (k FieldKey) Info() *FieldInfo {
	if int(k) >= len(fieldIndex) || fieldIndex[k] == 0 {
		return nil
	}
	return &fieldTable[fieldIndex[k]-1]
}

// String returns the field's name, "attributes" for KeyAttribute.
func (k FieldKey) String() string {
	if k == KeyAttribute {
		return "attributes"
	}
	if row := k.Info(); row != nil {
		return row.Name
	}
	return "unknown"
}

// FieldByName returns the key for a name of the table, such as "actor.name".
func FieldByName(name string) (FieldKey, bool) {
	for i := range fieldTable {
		if fieldTable[i].Name == name {
			return fieldTable[i].Key, true
		}
	}
	return 0, false
}
