package orders // want `asm.s is refused beside this package: .s is not Go`

import (
	_ "plugin" // want `import "plugin" is refused here: a plugin is code nobody has checked`
	"reflect"
	"unsafe" // want `import "unsafe" is refused here`
)

func nanotime() int64 // want `func nanotime has no body here`

func address(v reflect.Value) {
	_ = v.UnsafeAddr()                                   // want `reflect's UnsafeAddr is refused here`
	reflect.NewAt(v.Type(), unsafe.Pointer(v.Pointer())) // want `reflect's NewAt is refused here` `reflect's Pointer is refused here`
}
