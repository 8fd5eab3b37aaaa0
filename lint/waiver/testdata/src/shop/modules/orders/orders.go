package orders

//shop:allow boundary until=2999-01-31 owner=@orders a good one
var a int

//shop:allow boundary until=2020-01-31 owner=@orders gone by // want `expired waiver: boundary of @orders ended on 2020-01-31`
var b int

//shop:allow boundary owner=@orders without a day // want `malformed waiver: write //shop:allow`
var c int

//shop:allow boundary until=2999-01-31 owner=@orders // want `malformed waiver: write //shop:allow`
var d int

//shop:allow boundary until=2999-02-31 owner=@orders no such day // want `malformed waiver: 2999-02-31 is not a day`
var e int

//shop:allow everything until=2999-01-31 owner=@orders no such analyzer // want `malformed waiver: there is no analyzer everything`
var f int
