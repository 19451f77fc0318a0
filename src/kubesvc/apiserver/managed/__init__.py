"""Who set which field: metadata.managedFields, and server-side apply, which is merging by it.

    shapes    the schema as these algorithms see it: structs, maps, lists with keys, sets, leaves
    sets      sets of fields in the form of FieldsV1, and their algebra
    typed     from objects to sets: what one has, what differs between two
    merging   one object merged into another, and pruned of what nobody wants any more
    entries   managedFields itself: whose set is whose, since when
    scaling   whose the replicas are, told to a Scale and back
    changes   what an update and an apply do to the entries

Pure. Follows KEP-555, apimachinery pkg/util/managedfields and structured-merge-diff; decision 14 has the differences.
"""
