;; Opens a database although it was granted none.
;; expect: denied
;; says: granted nothing

(import "flowstone:asset/sql@0.1.0" "open" (func $open_database (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $open_database (i32.const 4096) (i32.const 4) (i32.const 2048))
  (i32.const 1024))
(data (i32.const 4096) "shop")
